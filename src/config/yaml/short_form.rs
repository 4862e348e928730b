//! The short form: which listener or pool a key at the top level belongs to.

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::config::file::File;
use crate::config::file::listener::ListenerSpec;
use crate::config::file::pool::PoolSpec;

/// The name of the listener and of the pool in the short form.
pub const DEFAULT_NAME: &str = "default";

/// The path of a key of the short form in the long form.
pub fn long_form_path(key: &str) -> Option<String> {
    if key == "listen" {
        Some(format!("listeners.{DEFAULT_NAME}.bind"))
    } else if field_names::<File>().contains(&key) {
        None
    } else if field_names::<ListenerSpec>().contains(&key) && key != "bind" && key != "pool" {
        Some(format!("listeners.{DEFAULT_NAME}.{key}"))
    } else if field_names::<PoolSpec>().contains(&key) {
        Some(format!("pools.{DEFAULT_NAME}.{key}"))
    } else {
        None
    }
}

/// The keys that are at the top level in the short form only.
pub fn short_form_keys() -> Vec<&'static str> {
    let nested = field_names::<ListenerSpec>().iter().chain(field_names::<PoolSpec>());
    ["listen", "backends"]
        .into_iter()
        .chain(nested.copied().filter(|key| *key != "backends" && long_form_path(key).is_some()))
        .collect()
}

/// The path of a key of the long form in the short form.
pub fn short_form_path(path: &str) -> String {
    let prefixes = [format!("listeners.{DEFAULT_NAME}."), format!("pools.{DEFAULT_NAME}.")];
    match prefixes.iter().find_map(|prefix| path.strip_prefix(prefix)) {
        Some("bind") => "listen".to_owned(),
        Some(rest) => rest.replacen("bind[", "listen[", usize::from(rest.starts_with("bind["))),
        None => path.to_owned(),
    }
}

/// The keys of one of the file's types, as serde knows them.
fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("only the names are wanted"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    // Always an error: `Names` has no values, and only takes the names of the fields.
    let _ = T::deserialize(Names(&mut names));
    names
}
