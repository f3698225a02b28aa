//! JSON from untrusted files: of a bounded size, and with no key given twice. Parsers keep the
//! last of two equal keys and others the first, so such a file means different weights to each.

use crate::error::{Error, Status};
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

/// Parses the text of a file, whose path is for the message.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T, Error> {
    let corrupt = |error: serde_json::Error| {
        let message = format!("{} is not the JSON it should be: {error}", path.display());
        Error::new(Status::CheckpointCorrupt, message)
    };
    serde_json::from_slice::<UniqueKeys>(text).map_err(corrupt)?;
    serde_json::from_slice(text).map_err(corrupt)
}

/// Any value, none of whose objects has a key twice.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = UniqueKeys;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            keys.insert(key);
            map.next_value::<UniqueKeys>()?;
        }
        Ok(UniqueKeys)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self, A::Error> {
        while sequence.next_element::<UniqueKeys>()?.is_some() {}
        Ok(UniqueKeys)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(UniqueKeys)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(UniqueKeys)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(UniqueKeys)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(UniqueKeys)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(UniqueKeys)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(UniqueKeys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parsed(text: &str) -> Result<Value, Error> {
        parse(text.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn every_kind_of_value_passes() {
        let text = r#"{"a": [1, -2, 3.5, true, null, "x"], "b": {"a": 1}}"#;
        assert_eq!(parsed(text).unwrap()["b"]["a"], 1);
    }

    #[test]
    fn a_key_given_twice_is_refused_at_any_depth() {
        for text in [r#"{"a": 1, "a": 2}"#, r#"[{"b": {"a": 1, "\u0061": 2}}]"#] {
            let error = parsed(text).unwrap_err();
            assert_eq!(error.status, Status::CheckpointCorrupt);
            assert!(error.message.contains("\"a\" is there twice"), "{error}");
        }
    }

    #[test]
    fn endless_nesting_is_an_error_and_not_a_crash() {
        assert_eq!(parsed(&"[".repeat(1 << 20)).unwrap_err().status, Status::CheckpointCorrupt);
    }
}
