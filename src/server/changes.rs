//! What another configuration changes, key by key: from the effective files, with the environment and flags applied, so
//! that it is told in the words of lb.yaml.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::admin::{ChangeKind, ConfigChange};
use crate::config::Config;
use crate::config::file::File;

/// Changes that a line of the log names; a file may be a wholly other one.
const MOST_NAMED: usize = 20;
/// Of a value that is shown.
const MOST_VALUE_CHARS: usize = 120;
/// Keys that a running process can't change, and blocks of such keys.
const AT_THE_START: [&str; 9] = [
    "workers",
    "admin.bind",
    "admin.socket",
    "admin.allowed_hosts",
    "relay",
    "log.format",
    "log.access",
    "log.access_format",
    "log.program",
];
/// Keys whose values, or those in them, may be secrets.
const SECRET: [&str; 3] = ["headers", "set_headers", "exchange"];

/// From one effective file to the next.
pub(super) fn between(before: &File, now: &File) -> Vec<ConfigChange> {
    let tree = |file: &File| serde_json::to_value(file).expect("the file's types have text keys only");
    let mut changes = Changes(Vec::new());
    changes.compare("", &tree(before), &tree(now));
    changes.0
}

/// Listeners and pools that differ, although no key of theirs does: by what is in files that they name.
pub(super) fn by_files(before: &Config, now: &Config, changes: &[ConfigChange]) -> Vec<ConfigChange> {
    let listeners = differing(&before.listeners, &now.listeners, |it| format!("listeners.{}", it.name));
    let pools = differing(&before.pools, &now.pools, |it| format!("pools.{}", it.name));
    let is_explained = |path: &String| {
        changes
            .iter()
            .any(|change| change.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with(['.', '['])))
    };
    let paths = listeners.into_iter().chain(pools).filter(|path| !is_explained(path));
    paths.map(|path| ConfigChange::new(path, ChangeKind::Files)).collect()
}

/// Changes as one line, not more than can be read.
pub(super) fn as_line(changes: &[ConfigChange]) -> String {
    if changes.is_empty() {
        return "none".to_owned();
    }
    let named: Vec<String> = changes.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let more = changes.len() - named.len();
    let rest = if more == 0 { String::new() } else { format!(", and {more} more") };
    named.join(", ") + &rest
}

fn differing<T: PartialEq>(before: &[T], now: &[T], path: impl Fn(&T) -> String) -> Vec<String> {
    let known: BTreeMap<String, &T> = before.iter().map(|item| (path(item), item)).collect();
    now.iter()
        .map(|item| (path(item), item))
        .filter(|(path, item)| known.get(path).is_some_and(|known| known != item))
        .map(|(path, _)| path)
        .collect()
}

struct Changes(Vec<ConfigChange>);

impl Changes {
    fn compare(&mut self, path: &str, before: &Value, now: &Value) {
        if before == now {
            return;
        }
        match (before, now) {
            (Value::Object(before), Value::Object(now)) => {
                let entries = |block: &'_ serde_json::Map<String, Value>| block.clone().into_iter().collect();
                let inner = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                self.compare_entries(&entries(before), &entries(now), inner);
            }
            (Value::Array(before_list), Value::Array(now_list)) if path.ends_with(".backends") => {
                let known = self.0.len();
                self.compare_entries(&by_address(before_list), &by_address(now_list), |address| {
                    format!("{path}[{address}]")
                });
                // The same ones in another order, which `policy: first` goes by.
                if self.0.len() == known {
                    self.push(path, &addresses(before_list), &addresses(now_list));
                }
            }
            _ => self.push(path, before, now),
        }
    }

    /// `before` and `now` by their keys; `path` gives the path of one.
    fn compare_entries(
        &mut self,
        before: &BTreeMap<String, Value>,
        now: &BTreeMap<String, Value>,
        path: impl Fn(&str) -> String,
    ) {
        for (key, value) in now {
            match before.get(key) {
                Some(known) => self.compare(&path(key), known, value),
                None => {
                    let path = path(key);
                    let now = scalar(&path, value);
                    self.0.push(ConfigChange { now, ..ConfigChange::new(path, ChangeKind::Added) });
                }
            }
        }
        for (key, value) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
            let path = path(key);
            let before = scalar(&path, value);
            self.0.push(ConfigChange { before, ..ConfigChange::new(path, ChangeKind::Removed) });
        }
    }

    fn push(&mut self, path: &str, before: &Value, now: &Value) {
        let needs_restart = AT_THE_START
            .iter()
            .any(|key| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
        let (before, now) = (shown(path, before), shown(path, now));
        self.0.push(ConfigChange {
            before,
            now,
            needs_restart,
            ..ConfigChange::new(path.to_owned(), ChangeKind::Changed)
        });
    }
}

fn by_address(backends: &[Value]) -> BTreeMap<String, Value> {
    let address = |backend: &Value| backend["address"].as_str().unwrap_or_default().to_owned();
    backends.iter().map(|backend| (address(backend), backend.clone())).collect()
}

fn addresses(backends: &[Value]) -> Value {
    let all: Vec<&str> = backends.iter().filter_map(|backend| backend["address"].as_str()).collect();
    all.join(", ").into()
}

/// The value as it is shown, unless it is a block.
fn scalar(path: &str, value: &Value) -> Option<String> {
    if value.is_object() { None } else { shown(path, value) }
}

/// `None`: it may be a secret.
fn shown(path: &str, value: &Value) -> Option<String> {
    if path.split(['.', '[']).any(|step| SECRET.contains(&step)) || path.contains("health_check.http.") {
        return None;
    }
    let text = match value {
        Value::String(text) => text.clone(),
        // A secret may be in it.
        Value::Object(_) => "{…}".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= MOST_VALUE_CHARS {
        return Some(text);
    }
    Some(text.chars().take(MOST_VALUE_CHARS).chain(['…']).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Source};

    fn told(before: &[&str], now: &[&str]) -> Vec<String> {
        let tree = |keys: &[&str]| {
            let set = keys.iter().map(|key| (*key).to_owned()).collect();
            let listen = vec!["127.0.0.1:1".to_owned()];
            let flags = Overrides { listen, set, ..Overrides::default() };
            let environment = Overrides { backend: vec!["127.0.0.1:2".to_owned()], ..Overrides::default() };
            Source { flags, environment, ..Source::default() }.load().expect("it is valid").effective
        };
        between(&tree(before), &tree(now)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_key_is_told_with_what_it_was_and_is() {
        assert!(told(&[], &[]).is_empty());
        assert_eq!(told(&[], &["attempts=2"]), ["pools.default.attempts: 3 -> 2"]);
        assert_eq!(told(&["health_check.interval=1s"], &[]), ["pools.default.health_check: {…} -> off"]);
        assert_eq!(
            told(&[], &["workers=2", "log.level=debug", "log.access_format=combined"]),
            [
                "log.access_format: null -> combined (needs a restart)",
                "log.level: info -> debug",
                "workers: auto -> 2 (needs a restart)"
            ]
        );
    }

    #[test]
    fn backends_are_told_by_their_addresses() {
        let backends = |list: &str| format!("backends={list}");
        let (one, two) = (backends("[127.0.0.1:2, 127.0.0.1:3]"), backends("[127.0.0.1:3, 127.0.0.1:2]"));
        assert_eq!(
            told(&[&one], &[&backends("[{address: '127.0.0.1:3', weight: 5}, 127.0.0.1:4]")]),
            [
                "pools.default.backends[127.0.0.1:3].weight: 1 -> 5",
                "+pools.default.backends[127.0.0.1:4]",
                "-pools.default.backends[127.0.0.1:2]"
            ]
        );
        let order = "pools.default.backends: 127.0.0.1:2, 127.0.0.1:3 -> 127.0.0.1:3, 127.0.0.1:2";
        assert_eq!(told(&[&one], &[&two]), [order]);
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let check = |token: &str| format!("health_check={{http: {{headers: {{Authorization: {token}}}}}}}");
        let told = told(&[&check("old"), "http.set_headers.X-Key=old"], &[&check("new"), "http.set_headers.X-Key=new"]);
        assert_eq!(
            told,
            [
                "listeners.default.http.set_headers.X-Key: changed (not shown)",
                "pools.default.health_check.http.headers.Authorization: changed (not shown)"
            ]
        );
    }

    #[test]
    fn a_line_names_not_too_many() {
        let change = |number| ConfigChange::new(format!("pools.p{number}"), ChangeKind::Added);
        let line = as_line(&(0..25).map(change).collect::<Vec<_>>());
        assert!(line.starts_with("+pools.p0, +pools.p1, ") && line.ends_with("+pools.p19, and 5 more"), "{line}");
    }
}
