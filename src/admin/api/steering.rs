//! Answers to changes.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::backends::Backend;

use super::super::history::History;
use super::pools::BackendReport;

/// What was added or changed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MembersReport {
    pub result: String,
    /// As they are now; none while a name has not resolved.
    pub backends: Vec<BackendReport>,
}

/// What drains, or was removed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DrainReport {
    pub result: String,
    /// Their open connections; in mode http, requests under way.
    pub active: usize,
}

/// A new process has taken over.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UpgradeReport {
    pub result: String,
    /// The new process's id.
    pub pid: u32,
}

impl MembersReport {
    pub(in crate::admin) fn new(result: &str, backends: &[Arc<Backend>], history: &History) -> Self {
        let now = Instant::now();
        let backends = backends.iter().map(|backend| BackendReport::new(backend, history, now)).collect();
        Self { result: result.to_owned(), backends }
    }
}

impl DrainReport {
    pub(in crate::admin) fn new(result: &str, backends: &[Arc<Backend>]) -> Self {
        Self { result: result.to_owned(), active: backends.iter().map(|backend| backend.active()).sum() }
    }
}
