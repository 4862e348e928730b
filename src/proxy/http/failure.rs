//! What a client gets in place of a backend's response.

use std::fmt::Display;

use crate::telemetry::Cause;

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: u16,
    /// For the client.
    pub(super) reason: String,
    /// For the access log.
    pub(super) cause: Cause,
}

impl Failure {
    pub(super) fn new(status: u16, reason: impl Display, cause: Cause) -> Self {
        Self { status, reason: reason.to_string(), cause }
    }
}
