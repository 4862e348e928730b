//! What operators say of backends while the balancer runs, as JSON: judged by the rules of the file.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::build::{Block, build_further_backend, check_loops, check_weight};
use super::file::backup::BackupRank;
use super::file::pool::BackendSpec;
use super::file::units::{DurationText, texts_or_blocks};
use super::global::Config;
use super::pool::{BackendConfig, PoolConfig};
use super::problem::{Problem, Problems};
use super::yaml::{Reporter, read_json};

/// What is to change of a backend; `None`: it stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendChanges {
    /// 0 to 256.
    pub weight: Option<u16>,
    /// 0: a primary.
    pub rank: Option<u8>,
    /// Connections at once; `Some(None)`: any number.
    pub max_connections: Option<Option<NonZeroUsize>>,
}

/// The same as JSON.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct ChangesSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<BackupRank>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<usize>,
}

/// A duration as the file has it: `30s`.
///
/// # Errors
/// It is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<DurationText>().map(|duration| duration.0)
}

/// A list as the file has it, with one entry.
#[derive(Default, Deserialize)]
struct OneEntry {
    #[serde(deserialize_with = "texts_or_blocks")]
    backends: Vec<BackendSpec>,
}

/// Where that entry is.
const ENTRY: &str = "backends[0]";

impl BackendConfig {
    /// Reads an entry of `backends` for a pool that runs.
    ///
    /// # Errors
    /// Every problem with it; paths begin within the entry.
    pub fn from_json(entry: &Value, pool: &PoolConfig) -> Result<Self, Problems> {
        let list = serde_json::json!({ "backends": [entry] });
        let (OneEntry { backends }, mut report) = read_json(&list).map_err(|problem| Problems(vec![problem]))?;
        let built = backends.first().and_then(|spec| build_further_backend(ENTRY, spec, pool, &mut report));
        for problem in &mut report.problems {
            let within = problem.path.strip_prefix(ENTRY).map(|path| path.trim_start_matches('.').to_owned());
            problem.path = within.unwrap_or_default();
        }
        match built {
            Some(built) if report.problems.is_empty() => Ok(built),
            _ => Err(Problems(report.problems)),
        }
    }

    /// What [`BackendConfig::from_json`] reads.
    pub fn to_json(&self) -> Value {
        let spec = BackendSpec {
            address: self.address.to_string(),
            weight: self.weight,
            backup: BackupRank(self.rank),
            max_connections: self.max_connections.map_or(0, NonZeroUsize::get),
            check: self.check.as_ref().map(ToString::to_string),
        };
        serde_json::to_value(spec).expect("texts and numbers")
    }
}

impl BackendChanges {
    /// Reads `weight`, `backup` and `max_connections`.
    ///
    /// # Errors
    /// Every problem with them; none of them is given.
    pub fn from_json(changes: &Value) -> Result<Self, Problems> {
        let (spec, mut report) = read_json(changes).map_err(|problem| Problems(vec![problem]))?;
        let ChangesSpec { weight, backup, max_connections } = spec;
        check_weight("weight", weight.unwrap_or_default(), &mut Block::root(&mut report));
        let max_connections = max_connections.map(NonZeroUsize::new);
        let changes = Self { weight, rank: backup.map(|rank| rank.0), max_connections };
        if changes == Self::default() && report.problems.is_empty() {
            report.problems.push(Problem::general("nothing is to change; give weight, max_connections or backup"));
        }
        if report.problems.is_empty() { Ok(changes) } else { Err(Problems(report.problems)) }
    }

    /// What [`BackendChanges::from_json`] reads.
    pub fn to_json(self) -> Value {
        let spec = ChangesSpec {
            weight: self.weight,
            backup: self.rank.map(BackupRank),
            max_connections: self.max_connections.map(|max| max.map_or(0, NonZeroUsize::get)),
        };
        serde_json::to_value(spec).expect("numbers")
    }

    /// What makes another backend like this one.
    pub fn all_of(backend: &BackendConfig) -> Self {
        let BackendConfig { weight, rank, max_connections, .. } = *backend;
        Self { weight: Some(weight), rank: Some(rank), max_connections: Some(max_connections) }
    }

    /// These, and what they leave of earlier ones.
    #[must_use]
    pub fn over(self, before: Self) -> Self {
        Self {
            weight: self.weight.or(before.weight),
            rank: self.rank.or(before.rank),
            max_connections: self.max_connections.or(before.max_connections),
        }
    }
}

impl Config {
    /// Why this backend can't be added to a pool; `None`: it leads back to no listener, as far as texts show it.
    pub fn loop_by(&self, pool: &str, backend: &BackendConfig) -> Option<String> {
        let mut pools = self.pools.clone();
        pools.iter_mut().filter(|known| known.name == pool).for_each(|pool| pool.backends = vec![backend.clone()]);
        let mut report = Reporter::default();
        check_loops(&self.listeners, &pools, &mut Block::root(&mut report));
        report.problems.into_iter().map(|problem| problem.message).next()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(result: Result<impl std::fmt::Debug, Problems>) -> String {
        result.expect_err("it is wrong").to_string()
    }

    #[test]
    fn an_entry_is_read_as_in_the_file_and_all_problems_are_told() {
        let pool = PoolConfig::example();
        let entry = json!({"address": "app:80", "weight": 7, "backup": 2, "max_connections": 9});
        let read = BackendConfig::from_json(&entry, &pool).expect("it is right");
        assert_eq!((read.weight, read.rank, read.max_connections), (7, 2, NonZeroUsize::new(9)));
        assert_eq!(read.to_json(), entry);
        assert_eq!(BackendConfig::from_json(&json!("app:80"), &pool).expect("it is right").weight, 1);
        let wrong = json!({"address": "app", "weight": 300, "wieght": 1, "backup": 101, "check": "app:81"});
        let said = problems(BackendConfig::from_json(&wrong, &pool));
        for part in [
            "`app` is not a backend's address",
            "weight must be from 0 to 256",
            "wieght is an unknown key; did you mean `weight`?",
            "backup is the integer `101`; write true, false, or a rank from 1 to 100",
            "check needs a `health_check` of the pool",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        for wrong in [json!(7), json!(null), json!([]), json!({}), json!({"weight": 1}), json!("app:0")] {
            let said = problems(BackendConfig::from_json(&wrong, &pool));
            assert!(!said.contains(ENTRY), "{said}");
        }
    }

    #[test]
    fn changes_are_at_least_one_and_later_ones_hold() {
        let read = |json: Value| BackendChanges::from_json(&json);
        let first = read(json!({"weight": 0, "backup": true, "max_connections": 0})).expect("they are right");
        assert_eq!((first.weight, first.rank, first.max_connections), (Some(0), Some(1), Some(None)));
        let second = read(json!({"weight": 5})).expect("they are right").over(first);
        assert_eq!(second.to_json(), json!({"weight": 5, "backup": true, "max_connections": 0}));
        assert!(problems(read(json!({}))).contains("nothing is to change"));
        assert!(problems(read(json!([1]))).contains("no JSON object"));
        assert!(problems(read(json!({"weight": 257}))).contains("weight must be from 0 to 256"));
        assert!(problems(read(json!({"weight": -1, "address": "b:1"}))).contains("address is an unknown key"));
    }
}
