//! What a client gets in place of a backend's response.

use std::fmt::Display;

use crate::backends::Evidence;
use crate::telemetry::Cause;

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: u16,
    /// For the client.
    pub(super) reason: String,
    /// For the access log.
    pub(super) cause: Cause,
    /// What it says about the backend, where it is its fault.
    pub(super) evidence: Option<Evidence>,
}

impl Failure {
    pub(super) fn new(status: u16, reason: impl Display, cause: Cause) -> Self {
        Self { status, reason: reason.to_string(), cause, evidence: None }
    }

    /// One that may be the backend's fault.
    pub(super) fn of_backend(status: u16, reason: impl Display, cause: Cause, evidence: Evidence) -> Self {
        Self { evidence: Some(evidence), ..Self::new(status, reason, cause) }
    }
}
