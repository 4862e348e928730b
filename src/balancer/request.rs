//! What a pick is asked, and why it may have no answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::backends::Backend;

/// What a choice may depend on.
#[derive(Debug)]
pub struct PickRequest<'a> {
    /// When it is asked.
    pub now: Instant,
    /// The client's address; `None`: a unix socket.
    pub client: Option<IpAddr>,
    /// Backends that this client's connection has tried: none is tried twice.
    pub tried: &'a [Arc<Backend>],
}

/// Why there is no choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// No backend is known that was not tried.
    NoneLeft,
    /// There are some, but each has as many connections as it may.
    Full,
}

impl PickRequest<'_> {
    pub(super) fn is_untried(&self, backend: &Arc<Backend>) -> bool {
        !self.tried.iter().any(|tried| Arc::ptr_eq(tried, backend))
    }
}
