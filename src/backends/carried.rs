//! What an upgrade carries on of a pool, as the old process tells it to the new one: what operators want of its
//! backends, and what was learnt of them.
//!
//! Either process may be of another version. So what one side doesn't know is passed over, what it misses has a
//! default, and each backend is read by itself: one whose entry makes no sense begins anew. Points in time are told by
//! how long ago, or how far ahead, they are. Counters are not among it: one that came out lower than a scrape of the
//! old process has seen would be taken for a restart, and be counted as a whole once more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::admin_state::AdminState;
use super::evidence::Outcomes;
use super::rise_fall::CheckVerdict;

/// What names give later than this after the start begins anew: by then it tells little.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// A pool.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CarriedPool {
    /// How many turns its balancer has given.
    pub turn: u64,
    /// By address.
    pub backends: BTreeMap<String, Value>,
    /// What operators have changed of its members.
    pub wishes: Vec<Value>,
}

/// A backend: its `Status`, but for what is only shown.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CarriedBackend {
    pub(super) admin_state: AdminState,
    /// For an operator to enable it.
    pub(super) is_waiting: bool,
    /// `None`: it has no health checks.
    pub(super) checks: Option<CarriedChecks>,
    /// `None`: failure detection is off.
    pub(super) detector: Option<CarriedDetector>,
    /// Why it was ejected last.
    pub(super) ejection_reason: String,
    /// How long it has been starting slowly.
    pub(super) back_for: Option<Duration>,
    /// How its connections ended, however long ago.
    pub(super) outcomes: Outcomes,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CarriedChecks {
    pub(super) verdict: CheckVerdict,
    /// Results in a row that speak against the verdict.
    pub(super) against: usize,
    /// What the last one that failed has found.
    pub(super) failed_check: String,
    /// That was another role, and no failure.
    pub(super) is_standby: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CarriedDetector {
    /// Failed connects within the window: how long ago, the oldest first.
    pub(super) failures: Vec<Duration>,
    /// How long it stays ejected, none of it where it is being probed; `None`: it is up.
    pub(super) ejected_for: Option<Duration>,
    /// It was ejected for evidence rather than for facts.
    pub(super) is_by_evidence: bool,
    /// Ejections in a row.
    pub(super) repeats: u32,
    pub(super) last_ejection: Duration,
    /// Since the last ejection was over.
    pub(super) up_for: Duration,
}

/// What was carried on of backends that are not in their pool yet.
#[derive(Debug)]
pub(super) struct Expected {
    backends: BTreeMap<String, Value>,
    until: Instant,
}

impl Expected {
    pub(super) fn new(backends: BTreeMap<String, Value>, now: Instant) -> Self {
        Self { backends, until: now + KEPT_FOR }
    }

    /// Those that have not come.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.backends.keys().map(String::as_str)
    }

    /// What was carried on of a backend that comes into the pool.
    pub(super) fn take(&mut self, pool: &str, backend: &str, now: Instant) -> Option<CarriedBackend> {
        if self.until < now {
            self.backends.clear();
        }
        match serde_json::from_value(self.backends.remove(backend)?) {
            Ok(carried) => Some(carried),
            Err(error) => {
                tracing::warn!(pool, backend, %error, "the old process's word of it can't be read; it begins anew");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(entry: Value) -> Option<CarriedBackend> {
        let now = Instant::now();
        Expected::new(BTreeMap::from([("a".to_owned(), entry)]), now).take("pool", "a", now)
    }

    #[test]
    fn another_version_may_say_more_or_less() {
        let more = taken(json!({"admin_state": "drain", "weight": 7, "checks": {"verdict": "down", "colour": "red"}}));
        let more = more.expect("what is not known is passed over");
        assert_eq!(more.admin_state, AdminState::Drain);
        assert_eq!(more.checks.expect("told").verdict, CheckVerdict::Down);
        let less = taken(json!({})).expect("what is missing has a default");
        assert_eq!((less.admin_state, less.is_waiting), (AdminState::Enable, false));
        assert!(taken(json!({"admin_state": "hibernate"})).is_none(), "it begins anew, and no other does");
    }

    #[test]
    fn what_comes_late_begins_anew() {
        let (now, entry) = (Instant::now(), json!({"admin_state": "drain"}));
        let mut expected = Expected::new(BTreeMap::from([("a".to_owned(), entry)]), now);
        assert!(expected.take("pool", "a", now + KEPT_FOR * 2).is_none());
    }
}
