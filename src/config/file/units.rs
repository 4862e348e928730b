//! Values as a person writes them in YAML: durations with a unit, byte sizes, percentages, `auto`, one text or a list.
//!
//! Each parses from text, prints back to the same value, and has errors that show the right form.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Replaces an item of a list that can't be read, so that the others keep their numbers. The item was reported;
/// problems that only follow from it are not (`Reporter::problem`).
pub const UNREADABLE: &str = "\u{0}unreadable";

/// No duration in the configuration may be longer: sums with the clock can't overflow.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A duration written as a whole number and a unit: `250ms`, `2s`, `1m`, `1h`, `1d`; at most 365 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationText(pub Duration);

impl DurationText {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for DurationText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a duration; write a whole number and a unit: 250ms, 2s, 1m, 1h");
        let (number, scale) = split_unit(text, &DURATION_UNITS).ok_or_else(wrong)?;
        let duration = Duration::from_millis(number.checked_mul(scale).ok_or_else(wrong)?);
        if duration > MAX_DURATION {
            return Err(format!("`{text}` is too long; at most 365d"));
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_largest_unit(f, self.0.as_millis().try_into().unwrap_or(u64::MAX), &DURATION_UNITS[..4], "0s")
    }
}

/// A number of bytes written with a unit: `512B`, `16KiB`, `1MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        split_unit(text, &SIZE_UNITS)
            .and_then(|(number, scale)| number.checked_mul(scale))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size; write a whole number and a unit: 512B, 16KiB, 1MiB"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_largest_unit(f, self.0, &SIZE_UNITS, "0B")
    }
}

/// A share written in per cent: `20%`; 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_suffix('%')
            .and_then(|number| number.trim().parse().ok())
            .filter(|share| *share <= 100)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a percentage; write 0% to 100%"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

fn split_unit(text: &str, units: &[(&str, u64)]) -> Option<(u64, u64)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    let unit = text[digits..].trim();
    units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| (number, *scale))
}

fn write_in_largest_unit(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    match units.iter().rev().find(|(_, scale)| value != 0 && value.is_multiple_of(*scale)) {
        Some((unit, scale)) => write!(f, "{}{unit}", value / scale),
        None => f.write_str(zero),
    }
}

/// Reads and writes a type as the text of its `FromStr` and `Display`.
macro_rules! as_text {
    ($type:ty, $expecting:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $expecting, "pattern": $pattern })
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}

as_text!(DurationText, "a duration with a unit, such as 250ms, 2s, 1m or 1h", "^[0-9]+ *(ms|s|m|h|d)$");
as_text!(Percent, "a percentage, such as 20%", "^[0-9]+ *%$");
as_text!(ByteSize, "a size with a unit, such as 16KiB or 1MiB", "^[0-9]+ *(B|KiB|MiB|GiB)$");

/// `auto`, or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoOr {
    /// The program chooses, and logs its choice.
    #[default]
    Auto,
    Number(usize),
}

impl JsonSchema for AutoOr {
    fn schema_name() -> Cow<'static, str> {
        "AutoOrNumber".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1 }] })
    }
}

impl Serialize for AutoOr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Number(number) => serializer.serialize_u64(*number as u64),
        }
    }
}

impl<'de> Deserialize<'de> for AutoOr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AutoOrNumber;
        impl Visitor<'_> for AutoOrNumber {
            type Value = AutoOr;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto` or a whole number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<AutoOr, E> {
                usize::try_from(number).map(AutoOr::Number).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AutoOr, E> {
                match text {
                    "auto" => Ok(AutoOr::Auto),
                    _ => {
                        text.parse().map(AutoOr::Number).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
                    }
                }
            }
        }
        deserializer.deserialize_any(AutoOrNumber)
    }
}

/// One text or a list of them.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(with = "OneOrManyShape")]
#[serde(transparent)]
pub struct OneOrMany(pub Vec<String>);

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it only has a schema")]
enum OneOrManyShape {
    One(ItemShape),
    Many(Vec<ItemShape>),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it only has a schema")]
enum ItemShape {
    Text(String),
    Number(u64),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a text was expected")]
        enum TextOrNumber {
            Text(String),
            Number(u64),
        }
        impl TextOrNumber {
            fn into_text(self) -> String {
                match self {
                    Self::Text(text) => text,
                    Self::Number(number) => number.to_string(),
                }
            }
        }
        struct TextOrList;
        impl<'de> Visitor<'de> for TextOrList {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            /// A status or another number needs no quotes.
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![number.to_string()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<OneOrMany, A::Error> {
                let items = Vec::<TextOrNumber>::deserialize(de::value::SeqAccessDeserializer::new(list))?;
                Ok(OneOrMany(items.into_iter().map(TextOrNumber::into_text).collect()))
            }
        }
        deserializer.deserialize_any(TextOrList)
    }
}

/// An item of a list that is a block, or a text as its short form.
pub trait TextOrBlock: DeserializeOwned {
    /// The right form, for messages.
    const EXPECTED: &'static str;

    /// The block that the text is short for; `None`: it has to be a block.
    fn from_text(text: &str) -> Option<Self>;
}

/// Reads a list of such items.
pub fn texts_or_blocks<'de, T: TextOrBlock, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Item<T>>::deserialize(deserializer)?.into_iter().map(|Item(item)| item).collect())
}

struct Item<T>(T);

impl<'de, T: TextOrBlock> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor<T>(PhantomData<T>);
        impl<'de, T: TextOrBlock> Visitor<'de> for ItemVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
                T::from_text(text).ok_or_else(|| E::invalid_type(de::Unexpected::Str(text), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(ItemVisitor(PhantomData)).map(Item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_they_were_written() {
        for text in ["250ms", "2s", "90s", "1m", "1h", "36h", "0s"] {
            let duration: DurationText = text.parse().expect(text);
            let printed: DurationText = duration.to_string().parse().expect("printed form parses");
            assert_eq!(duration, printed, "{text}");
        }
        assert_eq!(DurationText::seconds(120).to_string(), "2m");
    }

    #[test]
    fn percentages_are_from_0_to_100() {
        assert_eq!("20%".parse(), Ok(Percent(20)));
        assert!("101%".parse::<Percent>().is_err() && "20".parse::<Percent>().is_err());
    }

    #[test]
    fn durations_without_a_unit_or_out_of_range_are_refused() {
        for text in ["", "2", "s", "-1s", "1.5s", "2 weeks", "366d", "99999999999999999999s", "18446744073709551615d"] {
            assert!(text.parse::<DurationText>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!("16KiB".parse(), Ok(ByteSize(16_384)));
        assert_eq!(ByteSize(16_384).to_string(), "16KiB");
        assert!("16KB".parse::<ByteSize>().is_err());
    }
}
