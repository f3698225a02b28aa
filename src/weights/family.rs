//! Model families: what a checkpoint's configuration and tensors are called. A new family is a new
//! row of the table.

use super::names::{LayerNumbers, Names};
use crate::error::{Error, Status, ensure};
use crate::spec::{Norm, Parts};
use serde_json::Value;

/// The names of one family, as Hugging Face's transformers writes them.
#[derive(Debug)]
pub(super) struct Family {
    /// config.json's `model_type`; families that share all else share a row.
    pub(super) model_types: &'static [&'static str],
    /// Where config.json keeps the decoder's part, if it has one of its own.
    pub(super) section: &'static str,
    /// What may stand before a tensor's name: a model saved with its head has one, without has not.
    pub(super) prefixes: &'static [&'static str],
    /// A tensor's name, with places for the layer, the part and the kind.
    pub(super) tensor: &'static str,
    /// The parts' names there.
    pub(super) parts: Parts<&'static str>,
    /// Which biases the family has.
    pub(super) bias: Parts<bool>,
    /// The norm of each head of Q and of K, if the family has one.
    pub(super) norm: Option<FamilyNorm>,
    /// Which layers have cross-attention.
    pub(super) layers: Layers,
    /// Keys of config.json; of several, the first that is there.
    pub(super) decoder_width: &'static [&'static str],
    pub(super) encoder_width: &'static [&'static str],
    pub(super) query_heads: &'static [&'static str],
    /// Without any, as many as query heads.
    pub(super) key_value_heads: &'static [&'static str],
    /// Without any, the decoder's width over its heads.
    pub(super) head_width: &'static [&'static str],
}

/// A family's norm. Hugging Face's round before their weight is multiplied.
#[derive(Debug)]
pub(super) struct FamilyNorm {
    /// The names that stand in the parts' place; V's is empty.
    pub(super) parts: Parts<&'static str>,
    /// Keys of config.json; of several, the first that is there.
    pub(super) epsilon: &'static [&'static str],
    /// What transformers takes without any, and leaves out of what it writes.
    pub(super) default_epsilon: f32,
}

/// Which of the decoder's layers have cross-attention.
#[derive(Debug)]
pub(super) enum Layers {
    /// All, as many as the first of these keys says.
    Counted(&'static [&'static str]),
    /// Those that this key lists by number.
    Listed(&'static str),
}

const PROJECTIONS: Parts<&str> = Parts { query: "q_proj", key: "k_proj", value: "v_proj" };
const NO_BIAS: Parts<bool> = Parts { query: false, key: false, value: false };
const EVERY_BIAS: Parts<bool> = Parts { query: true, key: true, value: true };

const FAMILIES: &[Family] = &[
    Family {
        model_types: &["whisper"],
        section: "",
        prefixes: &["model.", ""],
        tensor: "decoder.layers.{layer}.encoder_attn.{part}.{kind}",
        parts: PROJECTIONS,
        bias: Parts { query: true, key: false, value: true },
        norm: None,
        layers: Layers::Counted(&["decoder_layers"]),
        decoder_width: &["d_model"],
        encoder_width: &["d_model"],
        query_heads: &["decoder_attention_heads"],
        key_value_heads: &[],
        head_width: &[],
    },
    Family {
        // NLLB is m2m_100.
        model_types: &["bart", "mbart", "m2m_100", "marian"],
        section: "",
        prefixes: &["model.", ""],
        tensor: "decoder.layers.{layer}.encoder_attn.{part}.{kind}",
        parts: PROJECTIONS,
        bias: EVERY_BIAS,
        norm: None,
        layers: Layers::Counted(&["decoder_layers"]),
        decoder_width: &["d_model"],
        encoder_width: &["d_model"],
        query_heads: &["decoder_attention_heads"],
        key_value_heads: &[],
        head_width: &[],
    },
    Family {
        model_types: &["t5", "mt5", "umt5"],
        section: "",
        prefixes: &[""],
        tensor: "decoder.block.{layer}.layer.1.EncDecAttention.{part}.{kind}",
        parts: Parts { query: "q", key: "k", value: "v" },
        bias: NO_BIAS,
        norm: None,
        // Old configurations give only num_layers, which then stands for both stacks.
        layers: Layers::Counted(&["num_decoder_layers", "num_layers"]),
        decoder_width: &["d_model"],
        encoder_width: &["d_model"],
        query_heads: &["num_heads"],
        key_value_heads: &[],
        head_width: &["d_kv"],
    },
    Family {
        model_types: &["mllama", "mllama_text_model"],
        section: "text_config",
        // The text model alone, and the three places it has had in the whole model.
        prefixes: &["model.", "model.language_model.", "language_model.model.", ""],
        tensor: "layers.{layer}.cross_attn.{part}.{kind}",
        parts: PROJECTIONS,
        bias: NO_BIAS,
        norm: Some(FamilyNorm {
            parts: Parts { query: "q_norm", key: "k_norm", value: "" },
            epsilon: &["rms_norm_eps"],
            default_epsilon: 1e-5,
        }),
        layers: Layers::Listed("cross_attention_layers"),
        decoder_width: &["hidden_size"],
        encoder_width: &["hidden_size"],
        query_heads: &["num_attention_heads"],
        key_value_heads: &["num_key_value_heads"],
        head_width: &["head_dim"],
    },
];

impl Family {
    /// The family of a configuration's `model_type`.
    pub(super) fn find(config: &Value) -> Result<&'static Family, Error> {
        let model_type = config["model_type"].as_str().unwrap_or("");
        let found = FAMILIES.iter().find(|family| family.model_types.contains(&model_type));
        found.ok_or_else(|| {
            let known = FAMILIES.iter().flat_map(|family| family.model_types);
            let message = format!(
                "config.json's model_type is {model_type:?}; this version reads {}; for others, \
                 fill in the spec and give the checkpoint's tensor_pattern",
                known.copied().collect::<Vec<_>>().join(", ")
            );
            Error::new(Status::CheckpointUnknownFamily, message)
        })
    }

    /// The part of the configuration that is about the decoder.
    pub(super) fn section<'a>(&self, config: &'a Value) -> &'a Value {
        match config.get(self.section) {
            Some(section) if section.is_object() => section,
            _ => config,
        }
    }

    /// The names with one of the prefixes.
    pub(super) fn names(&self, prefix: &str) -> Names {
        let owned = |Parts { query, key, value }: &Parts<&str>| Parts {
            query: String::from(*query),
            key: String::from(*key),
            value: String::from(*value),
        };
        Names {
            prefix: prefix.to_owned(),
            tensor: self.tensor.to_owned(),
            parts: owned(&self.parts),
            norms: self.norm.as_ref().map(|norm| owned(&norm.parts)),
        }
    }

    /// The norm that a configuration asks for.
    pub(super) fn norm_of(&self, section: &Value) -> Result<Option<Norm>, Error> {
        let Some(norm) = &self.norm else {
            return Ok(None);
        };
        let given = number(section, norm.epsilon)?;
        let epsilon = given.map_or(norm.default_epsilon, |epsilon| epsilon as f32);
        Ok(Some(Norm { epsilon, rounds_first: true }))
    }

    /// The checkpoint's own numbers of the layers that have cross-attention, in order.
    pub(super) fn layer_numbers(&self, section: &Value) -> Result<LayerNumbers, Error> {
        match self.layers {
            Layers::Counted(keys) => {
                integer(section, keys)?.map(LayerNumbers::Counted).ok_or_else(|| absent(keys[0]))
            }
            Layers::Listed(key) => listed(section, key).map(LayerNumbers::Listed),
        }
    }
}

/// The integer under the first of the keys that is there.
pub(super) fn integer(section: &Value, keys: &[&str]) -> Result<Option<i64>, Error> {
    first(section, keys, Value::as_i64, "an integer")
}

fn number(section: &Value, keys: &[&str]) -> Result<Option<f64>, Error> {
    first(section, keys, Value::as_f64, "a number")
}

fn first<T>(
    section: &Value,
    keys: &[&str],
    read: fn(&Value) -> Option<T>,
    what: &str,
) -> Result<Option<T>, Error> {
    let Some((key, value)) = keys.iter().find_map(|key| section.get(key).map(|value| (key, value)))
    else {
        return Ok(None);
    };
    if value.is_null() {
        return Ok(None);
    }
    read(value).map(Some).ok_or_else(|| {
        let message = format!("config.json's {key} is {value}; it must be {what}");
        Error::new(Status::CheckpointCorrupt, message)
    })
}

/// The error for a key that must be there.
pub(super) fn absent(key: &str) -> Error {
    Error::new(Status::CheckpointCorrupt, format!("config.json has no {key}"))
}

fn listed(section: &Value, key: &str) -> Result<Vec<i64>, Error> {
    let list = section[key].as_array().ok_or_else(|| absent(key))?;
    let numbers: Option<Vec<i64>> = list.iter().map(Value::as_i64).collect();
    let numbers = numbers.filter(|numbers| numbers.iter().all(|&number| number >= 0));
    let ascending = |numbers: &Vec<i64>| numbers.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(
        numbers.as_ref().is_some_and(ascending),
        CheckpointCorrupt,
        "config.json's {key} is not a list of ascending layer numbers"
    );
    Ok(numbers.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Part;
    use crate::weights::Kind;
    use serde_json::json;

    fn family(model_type: &str) -> &'static Family {
        Family::find(&json!({ "model_type": model_type })).unwrap()
    }

    #[test]
    fn names_are_hugging_faces() {
        let name = |model_type, prefix, number, part, kind| {
            family(model_type).names(prefix).of(number, part, kind).unwrap_or_default()
        };
        let whisper = name("whisper", "model.", 3, Part::Value, Kind::Bias);
        assert_eq!(whisper, "model.decoder.layers.3.encoder_attn.v_proj.bias");
        let t5 = name("t5", "", 0, Part::Key, Kind::Weight);
        assert_eq!(t5, "decoder.block.0.layer.1.EncDecAttention.k.weight");
        let mllama = name("mllama", "model.", 8, Part::Query, Kind::Weight);
        assert_eq!(mllama, "model.layers.8.cross_attn.q_proj.weight");
        let norm = name("mllama", "model.", 8, Part::Key, Kind::Norm);
        assert_eq!(norm, "model.layers.8.cross_attn.k_norm.weight");
        assert_eq!(name("t5", "", 0, Part::Key, Kind::Norm), "");
    }

    #[test]
    fn mllamas_norm_has_the_configurations_epsilon_or_transformers() {
        let epsilon = |config: Value| {
            family("mllama").norm_of(&config).map(|norm| norm.map(|norm| norm.epsilon))
        };
        assert_eq!(epsilon(json!({ "rms_norm_eps": 1e-6 })).unwrap(), Some(1e-6));
        assert_eq!(epsilon(json!({})).unwrap(), Some(1e-5));
        assert!(family("bart").norm_of(&json!({ "rms_norm_eps": 1e-6 })).unwrap().is_none());
        let error = epsilon(json!({ "rms_norm_eps": "small" })).unwrap_err();
        assert_eq!(error.status, Status::CheckpointCorrupt);
    }

    #[test]
    fn no_two_rows_claim_a_model_type() {
        let mut types: Vec<_> = FAMILIES.iter().flat_map(|family| family.model_types).collect();
        let count = types.len();
        types.sort();
        types.dedup();
        assert_eq!(types.len(), count);
    }

    #[test]
    fn an_unknown_family_is_refused_with_the_known_ones() {
        let error = Family::find(&json!({ "model_type": "gpt2" })).unwrap_err();
        assert_eq!(error.status, Status::CheckpointUnknownFamily);
        assert!(error.message.contains("reads whisper, bart"), "{error}");
    }

    #[test]
    fn mllamas_layers_are_listed_in_its_text_section() {
        let mllama = family("mllama");
        let config = json!({ "text_config": { "cross_attention_layers": [3, 8, 13] } });
        let numbers = mllama.layer_numbers(mllama.section(&config)).unwrap();
        assert_eq!((numbers.count(), numbers.at(1)), (Some(3), 8));
        for list in [json!([8, 3]), json!([3, 3]), json!([-1]), json!(["3"]), json!(3)] {
            let config = json!({ "cross_attention_layers": list });
            assert!(mllama.layer_numbers(mllama.section(&config)).is_err());
        }
    }
}
