//! What is shown of a backend.

use std::time::{Duration, SystemTime};

use crate::net::ConnectFailure;
use crate::telemetry::Traffic;

use super::status::BackendState;

/// A backend at one instant, for the admin API and metrics.
#[derive(Clone, Debug)]
pub struct BackendSnapshot {
    /// Whether it gets new connections.
    pub state: BackendState,
    /// Open connections.
    pub active: usize,
    /// Connections that are kept for the next request (http mode).
    pub idle: usize,
    /// Connections made so far.
    pub total: u64,
    /// Failed connects so far, by [`ConnectFailure`].
    pub connect_failures: [u64; ConnectFailure::ALL.len()],
    /// Connections that it closed after the client's first bytes and before its own.
    pub early_closes: u64,
    /// Times that it was set aside.
    pub ejections: u64,
    /// Time until a probe is allowed, where it is ejected.
    pub ejected_for: Option<Duration>,
    /// How long the last connect took.
    pub last_connect: Option<Duration>,
    /// What went wrong last, and when.
    pub last_error: Option<(String, SystemTime)>,
    /// Bytes relayed.
    pub bytes: Traffic,
}

impl BackendSnapshot {
    /// Failures that were its fault so far: failed connects and early closes.
    pub fn failures(&self) -> u64 {
        let blamed = ConnectFailure::ALL.iter().filter(|failure| failure.is_backends_fault());
        blamed.map(|failure| self.connect_failures[*failure as usize]).sum::<u64>() + self.early_closes
    }
}
