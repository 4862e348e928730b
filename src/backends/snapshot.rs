//! What is shown of a backend.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::net::ConnectFailure;
use crate::telemetry::{Answer, Traffic};

use super::check_log::{CheckResult, LastCheck};
use super::evidence::Evidence;
use super::status::BackendState;

/// A backend at one instant, for the admin API and metrics.
#[derive(Clone, Debug)]
pub struct BackendSnapshot {
    /// Whether it gets new connections.
    pub state: BackendState,
    /// Since when; `None`: since it came into its pool.
    pub since: Option<SystemTime>,
    /// What changes the state next; `None`: nothing is under way.
    pub next: Option<String>,
    /// Why it isn't up; `None`: it is, or an operator wants it so.
    pub reason: Option<String>,
    /// Open connections.
    pub active: usize,
    /// Connections that are kept for the next request (http mode).
    pub idle: usize,
    /// Connections made so far.
    pub total: u64,
    /// Answers so far, by [`Answer`].
    pub answers: [u64; Answer::ALL.len()],
    /// Until the first byte, of all answers together.
    pub waited: Duration,
    /// Failed connects so far, by [`ConnectFailure`].
    pub connect_failures: [u64; ConnectFailure::ALL.len()],
    /// Connections (in http mode requests) that ended badly so far, by [`Evidence`].
    pub bad_ends: [u64; Evidence::ALL.len()],
    /// Clients that left without an answer so far.
    pub unanswered: u64,
    /// Times that it was set aside, by reason.
    pub ejections: BTreeMap<&'static str, u64>,
    /// Time until a probe is allowed, where it is ejected.
    pub ejected_for: Option<Duration>,
    /// How long the last connect took.
    pub last_connect: Option<Duration>,
    /// What went wrong last, and when.
    pub last_error: Option<(String, SystemTime)>,
    /// Health checks so far, by [`CheckResult`].
    pub checks: [u64; CheckResult::ALL.len()],
    /// `None`: there was none yet.
    pub last_check: Option<LastCheck>,
    /// Bytes relayed.
    pub bytes: Traffic,
}

impl BackendSnapshot {
    /// Answers to requests so far; 0 in mode tcp.
    pub fn requests(&self) -> u64 {
        self.answers.iter().sum::<u64>() - self.answers[Answer::Byte as usize]
    }

    /// Failures so far: connects that failed by its fault, and connections that ended badly.
    pub fn failures(&self) -> u64 {
        let blamed = ConnectFailure::ALL.iter().filter(|failure| failure.is_backends_fault());
        blamed.map(|failure| self.connect_failures[*failure as usize]).sum::<u64>() + self.bad_ends.iter().sum::<u64>()
    }
}
