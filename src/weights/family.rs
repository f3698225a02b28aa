//! Model families: what a checkpoint's configuration and tensors are called. A new family is a new
//! row of the table.

use crate::error::{Error, Status};
use crate::spec::{Part, Parts};
use crate::weights::Kind;

/// The names of one family, as Hugging Face's transformers writes them.
#[derive(Debug)]
pub(super) struct Family {
    /// config.json's `model_type`.
    pub(super) model_type: &'static str,
    /// What may stand before a tensor's name: a model saved with its head has one, without has not.
    pub(super) prefixes: &'static [&'static str],
    /// A tensor's name, with places for the layer, the part and the kind.
    pub(super) tensor: &'static str,
    /// The parts' names there.
    pub(super) parts: Parts<&'static str>,
    /// Which biases the family has.
    pub(super) bias: Parts<bool>,
    /// Keys of config.json.
    pub(super) decoder_width: &'static str,
    pub(super) encoder_width: &'static str,
    pub(super) query_heads: &'static str,
    pub(super) key_value_heads: &'static str,
    pub(super) layers: &'static str,
}

const FAMILIES: &[Family] = &[Family {
    model_type: "whisper",
    prefixes: &["model.", ""],
    tensor: "decoder.layers.{layer}.encoder_attn.{part}.{kind}",
    parts: Parts { query: "q_proj", key: "k_proj", value: "v_proj" },
    bias: Parts { query: true, key: false, value: true },
    decoder_width: "d_model",
    encoder_width: "d_model",
    query_heads: "decoder_attention_heads",
    key_value_heads: "decoder_attention_heads",
    layers: "decoder_layers",
}];

impl Family {
    /// The family of a `model_type`.
    pub(super) fn find(model_type: &str) -> Result<&'static Family, Error> {
        let found = FAMILIES.iter().find(|family| family.model_type == model_type);
        found.ok_or_else(|| {
            let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
            let message = format!(
                "config.json's model_type is {model_type:?}; this version reads {}; put other \
                 models' tensors with xqkv_update_put",
                known.join(", ")
            );
            Error::new(Status::CheckpointUnknownFamily, message)
        })
    }

    /// A tensor's name behind its prefix.
    pub(super) fn tensor_name(&self, prefix: &str, layer: i64, part: Part, kind: Kind) -> String {
        let name = self.tensor.replace("{layer}", &layer.to_string());
        let name = name.replace("{part}", self.parts[part]).replace("{kind}", kind.name());
        format!("{prefix}{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whispers_names_are_hugging_faces() {
        let family = Family::find("whisper").unwrap();
        let name = family.tensor_name("model.", 3, Part::Value, Kind::Bias);
        assert_eq!(name, "model.decoder.layers.3.encoder_attn.v_proj.bias");
    }

    #[test]
    fn an_unknown_family_is_refused_with_the_known_ones() {
        let error = Family::find("gpt2").unwrap_err();
        assert_eq!(error.status, Status::CheckpointUnknownFamily);
        assert!(error.message.contains("reads whisper"), "{error}");
    }
}
