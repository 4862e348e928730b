//! The short form: whether a key at the top level belongs to the listener, the pool or both.

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::config::file::File;
use crate::config::file::listener::ListenerSpec;
use crate::config::file::pool::PoolSpec;

/// The name of the listener and of the pool in the short form.
pub const DEFAULT_NAME: &str = "default";

/// The paths of a key of the short form in the long form: none if it is no such key, two if the listener and the pool
/// have it, which then both get it, as `tcp`.
pub fn long_form_paths(key: &str) -> Vec<String> {
    if key == "listen" {
        return vec![format!("listeners.{DEFAULT_NAME}.bind")];
    }
    if field_names::<File>().contains(&key) {
        return Vec::new();
    }
    let of_listener = field_names::<ListenerSpec>().contains(&key) && key != "bind" && key != "pool";
    // One key can't say both whose TLS it is: at the top level it is that of clients.
    let of_pool = field_names::<PoolSpec>().contains(&key) && key != "tls";
    let sections = [("listeners", of_listener), ("pools", of_pool)];
    sections.iter().filter(|(_, has_it)| *has_it).map(|(name, _)| format!("{name}.{DEFAULT_NAME}.{key}")).collect()
}

/// Whether a key at the top level is one of the short form.
pub fn is_short_form_key(key: &str) -> bool {
    !long_form_paths(key).is_empty()
}

/// The keys that are at the top level in the short form only.
pub fn short_form_keys() -> Vec<&'static str> {
    let of_listener = field_names::<ListenerSpec>();
    let of_pool = field_names::<PoolSpec>().iter().filter(|key| **key != "backends" && !of_listener.contains(key));
    let nested = of_listener.iter().chain(of_pool).copied();
    ["listen", "backends"].into_iter().chain(nested.filter(|key| is_short_form_key(key))).collect()
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
