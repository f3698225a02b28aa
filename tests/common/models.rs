//! Cross-attention shapes of real models.

use xqkv::dtype::Dtype;
use xqkv::spec::{Parts, Spec};

/// Name, decoder width, encoder width, query heads, key/value heads, head width, layers, and which
/// of bq, bk, bv exist.
type Model = (&'static str, i64, i64, i64, i64, i64, i64, [bool; 3]);

const NONE: [bool; 3] = [false; 3];
const ALL: [bool; 3] = [true; 3];
/// Whisper's key projection has no bias.
const NO_KEY: [bool; 3] = [true, false, true];

pub const MODELS: &[Model] = &[
    ("whisper-tiny", 384, 384, 6, 6, 64, 4, NO_KEY),
    ("whisper-base", 512, 512, 8, 8, 64, 6, NO_KEY),
    ("whisper-small", 768, 768, 12, 12, 64, 12, NO_KEY),
    ("whisper-medium", 1024, 1024, 16, 16, 64, 24, NO_KEY),
    ("whisper-large-v3", 1280, 1280, 20, 20, 64, 32, NO_KEY),
    ("whisper-large-v3-turbo", 1280, 1280, 20, 20, 64, 4, NO_KEY),
    ("distil-large-v3", 1280, 1280, 20, 20, 64, 2, NO_KEY),
    ("t5-small", 512, 512, 8, 8, 64, 6, NONE),
    ("t5-base", 768, 768, 12, 12, 64, 12, NONE),
    ("t5-large", 1024, 1024, 16, 16, 64, 24, NONE),
    ("t5-3b", 1024, 1024, 32, 32, 128, 24, NONE),
    ("t5-11b", 1024, 1024, 128, 128, 128, 24, NONE),
    ("flan-t5-small", 512, 512, 6, 6, 64, 8, NONE),
    ("flan-t5-xl", 2048, 2048, 32, 32, 64, 24, NONE),
    ("flan-t5-xxl", 4096, 4096, 64, 64, 64, 24, NONE),
    ("t5gemma-9b-2b", 2304, 3584, 8, 4, 256, 26, NONE),
    ("bart-base", 768, 768, 12, 12, 64, 6, ALL),
    ("bart-large", 1024, 1024, 16, 16, 64, 12, ALL),
    ("nllb-600m", 1024, 1024, 16, 16, 64, 12, ALL),
    ("nllb-3.3b", 2048, 2048, 16, 16, 128, 24, ALL),
    ("marian", 512, 512, 8, 8, 64, 6, ALL),
    ("llama-3.2-11b-vision", 4096, 4096, 32, 8, 128, 8, NONE),
    ("llama-3.2-90b-vision", 8192, 8192, 64, 8, 128, 20, NONE),
    ("seamless-m4t-v2", 1024, 1024, 16, 16, 64, 24, ALL),
    ("moonshine-tiny", 288, 288, 8, 8, 36, 6, NONE),
    ("moonshine-base", 416, 416, 8, 8, 52, 8, NONE),
    ("cohere-asr", 1024, 1024, 8, 8, 128, 8, ALL),
    ("dia-1.6b", 2048, 1024, 16, 16, 128, 18, NONE),
    ("musicgen-small", 1024, 1024, 16, 16, 64, 24, NONE),
    ("musicgen-medium", 1536, 1536, 24, 24, 64, 48, NONE),
    ("musicgen-large", 2048, 2048, 32, 32, 64, 48, NONE),
    ("sd1.5-320", 320, 768, 8, 8, 40, 16, NONE),
    ("sd1.5-640", 640, 768, 8, 8, 80, 16, NONE),
    ("sd1.5-1280", 1280, 768, 8, 8, 160, 16, NONE),
    ("sd2.1-320", 320, 1024, 5, 5, 64, 16, NONE),
    ("sdxl-640", 640, 2048, 10, 10, 64, 10, NONE),
    ("sdxl-1280", 1280, 2048, 20, 20, 64, 60, NONE),
    ("pixart-sigma", 1152, 1152, 16, 16, 72, 28, ALL),
    ("ltx-video", 2048, 2048, 32, 32, 64, 28, ALL),
    ("sana-1.6b", 2240, 2240, 20, 20, 112, 20, ALL),
    ("wan2.1-1.3b", 1536, 1536, 12, 12, 128, 30, ALL),
    ("wan2.1-14b", 5120, 5120, 40, 40, 128, 40, ALL),
];

/// A model's spec, in bf16.
pub fn spec(model: &Model) -> Spec {
    let &(_, decoder_width, encoder_width, query_heads, key_value_heads, head_width, layers, bias) =
        model;
    Spec {
        layer_count: layers,
        decoder_width,
        encoder_width,
        query_heads,
        key_value_heads,
        head_width,
        value_head_width: head_width,
        weight_dtype: Dtype::Bf16.into(),
        bias: Parts { query: bias[0], key: bias[1], value: bias[2] },
        scale: Parts { query: 1.0, key: 1.0, value: 1.0 },
        norm: None,
    }
}
