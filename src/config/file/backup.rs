//! `backup` of a backend: false, true, or a rank.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Bounds the tiers that a pick may have to look at.
const MAX_RANK: u8 = 100;

/// The rank of a backend: 0 for a primary (`false`), 1 for a backup (`true`), more for those behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupRank(pub u8);

impl JsonSchema for BackupRank {
    fn schema_name() -> Cow<'static, str> {
        "BackupRank".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "type": "integer", "minimum": 1, "maximum": MAX_RANK }] })
    }
}

impl Serialize for BackupRank {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => serializer.serialize_bool(false),
            1 => serializer.serialize_bool(true),
            rank => serializer.serialize_u8(rank),
        }
    }
}

impl<'de> Deserialize<'de> for BackupRank {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagOrRank;
        impl Visitor<'_> for FlagOrRank {
            type Value = BackupRank;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "true, false, or a rank from 1 to {MAX_RANK}")
            }

            fn visit_bool<E: de::Error>(self, is_backup: bool) -> Result<BackupRank, E> {
                Ok(BackupRank(u8::from(is_backup)))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<BackupRank, E> {
                match u8::try_from(number) {
                    Ok(rank @ 1..=MAX_RANK) => Ok(BackupRank(rank)),
                    _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(FlagOrRank)
    }
}
