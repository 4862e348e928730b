//! What a reload has changed, in words: for its line of the log.

use std::collections::HashMap;

use crate::config::{BackendConfig, Config, PoolConfig};

/// Changes that are named; a file may be a wholly other one.
const MOST_NAMED: usize = 20;

/// From one configuration to the next: listeners, pools and backends that have come, gone or changed.
pub(super) fn between(before: &Config, now: &Config) -> String {
    let mut changes = compared("listener", &before.listeners, &now.listeners, |it| it.name.clone());
    changes.extend(compared("pool", &before.pools, &now.pools, |it| it.name.clone()));
    let known = by_key(&before.pools, |pool| pool.name.clone());
    for pool in &now.pools {
        changes.extend(known.get(&pool.name).into_iter().flat_map(|known| of_backends(known, pool)));
    }
    let more = changes.len().saturating_sub(MOST_NAMED);
    changes.truncate(MOST_NAMED);
    if more > 0 {
        changes.push(format!("and {more} more"));
    }
    if changes.is_empty() { "none of listeners and pools".to_owned() } else { changes.join(", ") }
}

fn of_backends(before: &PoolConfig, now: &PoolConfig) -> Vec<String> {
    let kind = format!("backend of {}", now.name);
    let key = |backend: &BackendConfig| backend.address.to_string();
    let mut changes = compared(&kind, &before.backends, &now.backends, key);
    let known = by_key(&before.backends, key);
    for backend in &now.backends {
        if let Some(known) = known.get(&key(backend)).filter(|known| known.weight != backend.weight) {
            changes.push(format!("weight of {} from {} to {}", backend.address, known.weight, backend.weight));
        }
    }
    changes
}

/// `+` has come, `-` has gone, `~` has changed.
fn compared<T: PartialEq>(kind: &str, before: &[T], now: &[T], key: impl Fn(&T) -> String) -> Vec<String> {
    let (known, present) = (by_key(before, &key), by_key(now, &key));
    let mut changes = Vec::new();
    for item in now {
        match known.get(&key(item)) {
            None => changes.push(format!("+{kind} {}", key(item))),
            Some(known) if *known != item => changes.push(format!("~{kind} {}", key(item))),
            Some(_) => {}
        }
    }
    let gone = before.iter().map(&key).filter(|key| !present.contains_key(key));
    changes.extend(gone.map(|key| format!("-{kind} {key}")));
    changes
}

/// Thousands of backends are compared while health checks and admin server wait.
fn by_key<T>(items: &[T], key: impl Fn(&T) -> String) -> HashMap<String, &T> {
    items.iter().map(|item| (key(item), item)).collect()
}
