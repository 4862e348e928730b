//! `off` and `on`, and what else people and YAML's versions write for them: `no` and `yes`, `false` and `true`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Whether a text means `off`.
pub fn means_off(text: &str) -> bool {
    ["off", "no", "false"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn means_on(text: &str) -> bool {
    ["on", "yes", "true"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Reads a value that is one word, such as an enum or a text: one that means `off` or `on` is read as this.
pub fn off_or_word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct OffOrWord<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for OffOrWord<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one word")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            let word = match text {
                _ if means_off(text) => "off",
                _ if means_on(text) => "on",
                other => other,
            };
            T::deserialize(StrDeserializer::new(word))
        }

        fn visit_bool<E: de::Error>(self, on: bool) -> Result<T, E> {
            T::deserialize(StrDeserializer::new(if on { "on" } else { "off" }))
        }
    }
    deserializer.deserialize_any(OffOrWord(PhantomData))
}

/// Adds `false` to the schema of such a value: editors of YAML 1.1 read `off` as that.
pub fn or_false(schema: &mut Schema) {
    let mut word = json_schema!({});
    for key in ["$ref", "type"] {
        if let Some(value) = schema.remove(key) {
            word.insert(key.to_owned(), value);
        }
    }
    schema.insert("anyOf".to_owned(), serde_json::json!([{ "const": false }, word]));
}

/// `off`, or a block of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffOr<T> {
    Off,
    /// With these settings.
    On(T),
}

impl<T: JsonSchema> JsonSchema for OffOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OffOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // YAML 1.1 editors read `off` as false.
        json_schema!({ "anyOf": [{ "enum": ["off", false] }, generator.subschema_for::<T>()] })
    }
}

impl<T: Serialize> Serialize for OffOr<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(settings) => settings.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OffOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OffOrBlock<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OffOrBlock<T> {
            type Value = OffOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off` or a block of settings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OffOr<T>, E> {
                if means_off(text) { Ok(OffOr::Off) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<OffOr<T>, E> {
                if on { Err(E::invalid_value(de::Unexpected::Bool(on), &self)) } else { Ok(OffOr::Off) }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OffOr<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(OffOr::On)
            }
        }
        deserializer.deserialize_any(OffOrBlock(PhantomData))
    }
}
