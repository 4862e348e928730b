//! What a reload has changed, in words: for its line of the log.

use std::fmt::Display;

use crate::config::{BackendConfig, Config, PoolConfig};

/// Changes that are named; a file may be a wholly other one.
const MOST_NAMED: usize = 20;

/// From one configuration to the next: listeners, pools and backends that have come, gone or changed.
pub(super) fn between(before: &Config, now: &Config) -> String {
    let mut changes = compared("listener", &before.listeners, &now.listeners, |it| it.name.clone());
    changes.extend(compared("pool", &before.pools, &now.pools, |it| it.name.clone()));
    for pool in &now.pools {
        let known = before.pools.iter().find(|known| known.name == pool.name);
        changes.extend(known.into_iter().flat_map(|known| of_backends(known, pool)));
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
    for backend in &now.backends {
        let known = before.backends.iter().find(|known| known.address == backend.address);
        if let Some(known) = known.filter(|known| known.weight != backend.weight) {
            changes.push(format!("weight of {} from {} to {}", backend.address, known.weight, backend.weight));
        }
    }
    changes
}

/// `+` has come, `-` has gone, `~` has changed.
fn compared<T: PartialEq, K: PartialEq + Display>(
    kind: &str,
    before: &[T],
    now: &[T],
    key: impl Fn(&T) -> K,
) -> Vec<String> {
    let mut changes = Vec::new();
    for item in now {
        match before.iter().find(|known| key(known) == key(item)) {
            None => changes.push(format!("+{kind} {}", key(item))),
            Some(known) if known != item => changes.push(format!("~{kind} {}", key(item))),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|known| !now.iter().any(|item| key(item) == key(known)));
    changes.extend(gone.map(|known| format!("-{kind} {}", key(known))));
    changes
}
