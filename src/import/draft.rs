//! The configuration as it grows, with notes on what is left out. Gives listeners and pools names that `config` takes.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::config::file::File;
use crate::config::file::listener::ListenerSpec;
use crate::config::file::pool::PoolSpec;

use super::note::{Notes, Place};

/// Names have to be shorter than `config` allows, as a number may follow.
const MAX_NAME: usize = 50;

/// The configuration so far.
#[derive(Default)]
pub struct Draft {
    pub file: File,
    pub notes: Notes,
    /// Where each listener and pool comes from, by its path.
    pub places: BTreeMap<String, Place>,
}

impl Draft {
    /// Adds a pool, unless there is the same one already; gives its name.
    pub fn add_pool(&mut self, name: &str, place: &Place, pool: PoolSpec) -> String {
        let name = add(&mut self.file.pools, name, pool);
        self.places.entry(format!("pools.{name}")).or_insert_with(|| place.clone());
        name
    }

    pub fn add_listener(&mut self, name: &str, place: &Place, listener: ListenerSpec) {
        let name = add(&mut self.file.listeners, name, listener);
        self.places.entry(format!("listeners.{name}")).or_insert_with(|| place.clone());
    }
}

/// Adds `value` under `name`, or under it and a number.
fn add<T: Debug>(all: &mut BTreeMap<String, T>, name: &str, value: T) -> String {
    let base = name_of(name);
    let is_same = |other: &T| format!("{other:?}") == format!("{value:?}");
    let mut name = base.clone();
    let mut number = 1;
    while let Some(other) = all.get(&name) {
        if is_same(other) {
            return name;
        }
        number += 1;
        name = format!("{base}-{number}");
    }
    all.insert(name.clone(), value);
    name
}

/// A name that `config` takes: letters, digits, `_` and `-`.
fn name_of(text: &str) -> String {
    let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    let name: String = name.trim_matches('-').chars().take(MAX_NAME).collect();
    if name.is_empty() { "default".to_owned() } else { name }
}
