//! How one exchange with one backend can end. What follows from it is decided by `forwarder`.

use std::fmt::Display;

use crate::backends::Evidence;
use crate::telemetry::Cause;

use super::failure::Failure;

/// How an exchange ended.
pub(super) enum ExchangeEnd {
    /// The client has the whole response.
    Answered {
        status: u16,
        /// The backend's connection can serve another request.
        backend_keeps: bool,
        /// So can the client's.
        client_keeps: bool,
    },
    /// The backend agreed to another protocol; these bytes are for the client.
    Upgraded(Vec<u8>),
    /// The backend's socket took no byte of the request.
    NotSent,
    /// The backend ended before the first byte of a response.
    Unanswered(Cause),
    /// There is no response that could be passed on, and the client has no byte of one.
    Failed(Failure),
    /// The client has a part of the response, or is gone; what that says about the backend, where it is its fault.
    Cut(Cause, Option<Evidence>),
}

impl ExchangeEnd {
    pub(super) fn failed(status: u16, reason: impl Display, cause: Cause) -> Self {
        Self::Failed(Failure::new(status, reason, cause))
    }

    /// The backend's answer is not acceptable.
    pub(super) fn invalid(reason: impl Display, cause: Cause) -> Self {
        Self::Failed(Failure::of_backend(502, reason, cause, Evidence::InvalidResponse))
    }

    /// The client has a part of the answer, and the backend gives no more of it.
    pub(super) fn cut_by_backend(cause: Cause) -> Self {
        Self::Cut(cause, Some(Evidence::CutAnswer))
    }
}
