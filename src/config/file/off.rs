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

fn on_or_off(text: &str) -> Option<bool> {
    means_on(text).then_some(true).or(means_off(text).then_some(false))
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

/// Reads `true` or `false`, and the words that mean them. Not in the schema: editors read them as YAML does.
pub fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Switch;
    impl Visitor<'_> for Switch {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
            on_or_off(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }

        fn visit_bool<E: de::Error>(self, on: bool) -> Result<bool, E> {
            Ok(on)
        }
    }
    deserializer.deserialize_any(Switch)
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

/// `on`, `off`, or a block of settings; `on` is a block of defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOffOr<T> {
    Off,
    /// With these settings.
    On(T),
}

impl<T: JsonSchema> JsonSchema for OnOffOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OnOffOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [generator.subschema_for::<OnOff>(), generator.subschema_for::<T>()] })
    }
}

impl<T: Serialize> Serialize for OnOffOr<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(settings) => settings.serialize(serializer),
        }
    }
}

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for OnOffOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchOrBlock<T>(PhantomData<T>);
        impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for SwitchOrBlock<T> {
            type Value = OnOffOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`on`, `off` or a block of settings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OnOffOr<T>, E> {
                match on_or_off(text) {
                    Some(on) => self.visit_bool(on),
                    None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<OnOffOr<T>, E> {
                Ok(if on { OnOffOr::On(T::default()) } else { OnOffOr::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OnOffOr<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(OnOffOr::On)
            }
        }
        deserializer.deserialize_any(SwitchOrBlock(PhantomData))
    }
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnOff(pub bool);

impl JsonSchema for OnOff {
    fn schema_name() -> Cow<'static, str> {
        "OnOff".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // YAML 1.1 editors read these words as true and false.
        json_schema!({ "enum": ["on", "off", true, false] })
    }
}

impl Serialize for OnOff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0 { "on" } else { "off" })
    }
}

impl<'de> Deserialize<'de> for OnOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Switch;
        impl Visitor<'_> for Switch {
            type Value = OnOff;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`on` or `off`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OnOff, E> {
                on_or_off(text).map(OnOff).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<OnOff, E> {
                Ok(OnOff(on))
            }
        }
        deserializer.deserialize_any(Switch)
    }
}
