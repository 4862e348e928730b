//! The configuration as it grows, with notes on what is left out. Gives listeners and pools names that `config` takes.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use crate::config::file::File;
use crate::config::file::listener::ListenerSpec;
use crate::config::file::pool::PoolSpec;

use super::note::{Notes, Place};

/// Names have to be shorter than `config` allows, as a number may follow.
const MAX_NAME: usize = 50;

/// Addresses that the listeners of a file may have; ranges of ports name many in few bytes.
pub const MAX_ADDRESSES: usize = 10_000;

/// The configuration so far.
#[derive(Default)]
pub struct Draft {
    pub file: File,
    pub notes: Notes,
    /// Where each listener and pool comes from, by its path.
    pub places: BTreeMap<String, Place>,
    /// Addresses to listen at so far.
    pub addresses: usize,
    pools: Known,
    listeners: Known,
}

impl Draft {
    /// Adds a pool, unless there is the same one already; gives its name.
    pub fn add_pool(&mut self, name: &str, place: &Place, pool: PoolSpec) -> String {
        let name = self.pools.add(&mut self.file.pools, name, pool);
        self.places.entry(format!("pools.{name}")).or_insert_with(|| place.clone());
        name
    }

    pub fn add_listener(&mut self, name: &str, place: &Place, listener: ListenerSpec) {
        let name = self.listeners.add(&mut self.file.listeners, name, listener);
        self.places.entry(format!("listeners.{name}")).or_insert_with(|| place.clone());
    }
}

/// What has a name already.
#[derive(Default)]
struct Known {
    /// By the name that was asked for, and all that it says.
    names: HashMap<(String, String), String>,
    /// The last number after a name.
    numbers: HashMap<String, usize>,
}

impl Known {
    /// Adds `value` under `name`, or under it and a number, unless it is there already; gives its name.
    fn add<T: Debug>(&mut self, all: &mut BTreeMap<String, T>, name: &str, value: T) -> String {
        let base = name_of(name);
        let key = (base.clone(), format!("{value:?}"));
        if let Some(name) = self.names.get(&key) {
            return name.clone();
        }
        let number = self.numbers.entry(base.clone()).or_insert(1);
        let mut name = base.clone();
        while all.contains_key(&name) {
            *number += 1;
            name = format!("{base}-{number}");
        }
        self.names.insert(key, name.clone());
        all.insert(name.clone(), value);
        name
    }
}

/// A name that `config` takes: letters, digits, `_` and `-`.
fn name_of(text: &str) -> String {
    let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    let name: String = name.trim_matches('-').chars().take(MAX_NAME).collect();
    if name.is_empty() { "default".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_for_what_is_the_same_and_another_for_what_differs() {
        let (mut known, mut all) = (Known::default(), BTreeMap::new());
        let names = [("a", 1), ("a-2", 2), ("a", 1), ("a", 3), ("a", 4), ("a", 3), ("é.b", 1)]
            .map(|(name, value)| known.add(&mut all, name, value));
        assert_eq!(names, ["a", "a-2", "a", "a-3", "a-4", "a-3", "b"]);
    }

    #[test]
    fn thousands_of_servers_with_one_name_take_little_time() {
        let (mut known, mut all) = (Known::default(), BTreeMap::new());
        let last = (0..100_000).map(|value| known.add(&mut all, "a", value)).last();
        assert_eq!(last.as_deref(), Some("a-100000"));
    }
}
