//! What a pick depends on, and why there may be none.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::backends::Backend;

/// What a choice may depend on.
#[derive(Debug)]
pub struct PickRequest<'a> {
    pub now: Instant,
    /// The client's address; `None`: it uses a unix socket.
    pub client: Option<IpAddr>,
    /// Backends that were tried before for the same connection or request: none is tried twice.
    pub tried: &'a [Arc<Backend>],
}

/// Why no backend was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// There is no backend that was not tried before.
    NoneLeft,
    /// There are some, but each has as many connections as allowed.
    Full,
}

impl PickRequest<'_> {
    pub(super) fn is_untried(&self, backend: &Arc<Backend>) -> bool {
        !self.tried.iter().any(|tried| Arc::ptr_eq(tried, backend))
    }
}
