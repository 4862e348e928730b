//! Why a client is not served.

use crate::telemetry::{Cause, Rejection};

/// Why a client is not served. Its socket is reset: a clean close would look like an empty answer;
/// but for failed handshakes, which TLS has words for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// The connection ends for this cause.
    Closed(Cause),
    /// A rule or limit refuses it, and it is counted as rejected.
    Rejected(Rejection),
}

impl From<Rejection> for Refusal {
    fn from(reason: Rejection) -> Self {
        Self::Rejected(reason)
    }
}
