//! How the health checks of one backend went so far.
//!
//! Counts and keeps; what results in a row say is not decided here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

labels! {
    /// How a check went.
    CheckResult {
        /// The backend gave the answer that is wanted.
        Success = "success",
        /// It is well, but in another role.
        Standby = "standby",
        /// It gave another one, or none in time.
        Failure = "failure",
        /// This machine had no file or no port for it: it says nothing of the backend.
        Skipped = "skipped",
    }
}

/// One check.
#[derive(Clone, Debug)]
pub struct LastCheck {
    pub result: CheckResult,
    /// What was wrong; empty: nothing.
    pub reason: String,
    /// When it ended.
    pub at: SystemTime,
    pub took: Duration,
}

/// The counts, and the last one.
#[derive(Debug, Default)]
pub(super) struct CheckLog(Mutex<Checks>);

#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    /// By [`CheckResult`].
    pub(super) counts: [u64; CheckResult::ALL.len()],
    /// `None`: there was none yet.
    pub(super) last: Option<LastCheck>,
}

impl CheckLog {
    pub(super) fn note(&self, result: CheckResult, reason: &str, took: Duration) {
        let mut checks = self.lock();
        checks.counts[result as usize] += 1;
        checks.last = Some(LastCheck { result, reason: reason.to_owned(), at: SystemTime::now(), took });
    }

    pub(super) fn so_far(&self) -> Checks {
        self.lock().clone()
    }

    /// A thread that panicked while it held the lock left whole values.
    fn lock(&self) -> MutexGuard<'_, Checks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
