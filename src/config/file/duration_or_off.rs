//! A duration with a unit, or `off`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::off::means_off;
use super::units::DurationText;

/// A duration, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationOrOff(pub Option<Duration>);

impl DurationOrOff {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Some(Duration::from_secs(seconds)))
    }
}

impl FromStr for DurationOrOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if means_off(text) { Ok(Self(None)) } else { text.parse().map(|DurationText(duration)| Self(Some(duration))) }
    }
}

impl fmt::Display for DurationOrOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => DurationText(duration).fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl Serialize for DurationOrOff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for DurationOrOff {
    fn schema_name() -> Cow<'static, str> {
        "DurationOrOff".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // YAML 1.1 editors read `off` as false.
        json_schema!({ "anyOf": [{ "enum": ["off", false] }, generator.subschema_for::<DurationText>()] })
    }
}

impl<'de> Deserialize<'de> for DurationOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrFalse;
        impl Visitor<'_> for TextOrFalse {
            type Value = DurationOrOff;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with a unit, such as 250ms, 2s, 1m or 1h, or off")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<DurationOrOff, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<DurationOrOff, E> {
                if on { Err(E::invalid_value(de::Unexpected::Bool(on), &self)) } else { Ok(DurationOrOff(None)) }
            }
        }
        deserializer.deserialize_any(TextOrFalse)
    }
}
