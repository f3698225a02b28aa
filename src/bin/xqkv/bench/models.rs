//! Shapes of cross-attention layers, from the configurations that the models were published with.

use std::str::FromStr;

/// A layer's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub name: String,
    pub decoder_width: i64,
    pub encoder_width: i64,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_width: i64,
    /// Rows of an encoder's whole result.
    pub encoder_rows: i64,
    pub layers: i64,
}

/// Models by name.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub enum Model {
    WhisperTiny,
    WhisperBase,
    WhisperSmall,
    WhisperMedium,
    #[value(name = "whisper-large-v3")]
    WhisperLargeV3,
    T5Base,
    T5Large,
    T5Xl,
    T5Xxl,
    BartBase,
    BartLarge,
    #[value(name = "nllb-600m")]
    Nllb600m,
    #[value(name = "nllb-3.3b")]
    Nllb3b,
    #[value(name = "mllama-11b")]
    Mllama11b,
    #[value(name = "mllama-90b")]
    Mllama90b,
}

impl Model {
    /// Those that are run if none is named.
    pub const USUAL: [Model; 4] =
        [Model::WhisperBase, Model::WhisperLargeV3, Model::T5Xxl, Model::Mllama11b];

    pub fn shape(self) -> Shape {
        let value = clap::ValueEnum::to_possible_value(&self);
        let name = value.map(|value| value.get_name().to_owned()).unwrap_or_default();
        let numbers = match self {
            Model::WhisperTiny => [384, 384, 6, 6, 64, 1500, 4],
            Model::WhisperBase => [512, 512, 8, 8, 64, 1500, 6],
            Model::WhisperSmall => [768, 768, 12, 12, 64, 1500, 12],
            Model::WhisperMedium => [1024, 1024, 16, 16, 64, 1500, 24],
            Model::WhisperLargeV3 => [1280, 1280, 20, 20, 64, 1500, 32],
            Model::T5Base => [768, 768, 12, 12, 64, 512, 12],
            Model::T5Large => [1024, 1024, 16, 16, 64, 512, 24],
            Model::T5Xl => [2048, 2048, 32, 32, 64, 512, 24],
            Model::T5Xxl => [4096, 4096, 64, 64, 64, 512, 24],
            Model::BartBase => [768, 768, 12, 12, 64, 1024, 6],
            Model::BartLarge => [1024, 1024, 16, 16, 64, 1024, 12],
            Model::Nllb600m => [1024, 1024, 16, 16, 64, 512, 12],
            Model::Nllb3b => [2048, 2048, 16, 16, 128, 512, 24],
            // One tile of an image; four are 6404 rows.
            Model::Mllama11b => [4096, 4096, 32, 8, 128, 1601, 8],
            Model::Mllama90b => [8192, 8192, 64, 8, 128, 1601, 20],
        };
        Shape::of(name, numbers)
    }
}

impl Shape {
    fn of(name: String, numbers: [i64; 7]) -> Self {
        let [decoder_width, encoder_width, heads, key_value_heads, head_width, rest @ ..] = numbers;
        let [encoder_rows, layers] = rest;
        Shape {
            name,
            decoder_width,
            encoder_width,
            heads,
            key_value_heads,
            head_width,
            encoder_rows,
            layers,
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<i64>, _> = text.split(',').map(str::parse).collect();
        let numbers = numbers.ok().and_then(|numbers| <[i64; 7]>::try_from(numbers).ok());
        let given =
            numbers.filter(|numbers| numbers.iter().all(|number| (1..1 << 20).contains(number)));
        given.map(|numbers| Shape::of(text.replace(',', "x"), numbers)).ok_or_else(|| {
            "give seven numbers of 1 to 1048575: DECODER_WIDTH,ENCODER_WIDTH,HEADS,\
             KEY_VALUE_HEADS,HEAD_WIDTH,ENCODER_ROWS,LAYERS"
                .into()
        })
    }
}
