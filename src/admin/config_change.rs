//! What a reload changes, or would change: a key at a time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `POST /api/v1/reload`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ReloadAnswer {
    /// In words.
    pub result: String,
    /// At most 1,000.
    pub changes: Vec<ConfigChange>,
    /// Further ones.
    pub more: usize,
}

/// One change of the effective configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// The key; or a whole listener, pool or backend: `pools.app.backends[10.0.0.9:80]`.
    pub path: String,
    pub kind: ChangeKind,
    /// What it was; null: it was not there, is a block, or may be a secret.
    pub before: Option<String>,
    /// What it is.
    pub now: Option<String>,
    /// Whether it holds only after a restart or an upgrade.
    pub needs_restart: bool,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Added,
    Removed,
    Changed,
    /// Its keys stay, but a file that it names has changed.
    Files,
}

impl ReloadAnswer {
    /// Answers are not longer than this.
    const MOST_CHANGES: usize = 1000;

    pub fn new(result: String, mut changes: Vec<ConfigChange>) -> Self {
        let more = changes.len().saturating_sub(Self::MOST_CHANGES);
        changes.truncate(Self::MOST_CHANGES);
        Self { result, changes, more }
    }
}

impl ConfigChange {
    /// Without values.
    pub fn new(path: String, kind: ChangeKind) -> Self {
        Self { path, kind, before: None, now: None, needs_restart: false }
    }
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kind, before, now, needs_restart } = self;
        match (kind, before, now) {
            (ChangeKind::Added, _, Some(now)) => write!(f, "+{path}: {now}")?,
            (ChangeKind::Added, _, None) => write!(f, "+{path}")?,
            (ChangeKind::Removed, ..) => write!(f, "-{path}")?,
            (ChangeKind::Changed, Some(before), Some(now)) => write!(f, "{path}: {before} -> {now}")?,
            (ChangeKind::Changed, ..) => write!(f, "{path}: changed (not shown)")?,
            (ChangeKind::Files, ..) => write!(f, "{path}: a file that it names has changed")?,
        }
        if *needs_restart { f.write_str(" (needs a restart)") } else { Ok(()) }
    }
}
