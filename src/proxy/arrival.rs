//! An accepted connection: what its record begins with.

use std::sync::Arc;
use std::time::Instant;

use crate::lifecycle::ConnectionId;
use crate::net::Peer;

use super::frontend::Frontend;
use super::worker_load::Load;

pub(super) struct Arrival {
    pub(super) id: ConnectionId,
    pub(super) accepted_at: Instant,
    pub(super) peer: Peer,
    pub(super) frontend: Arc<Frontend>,
    /// Of the worker that serves it.
    pub(super) load: Load,
}
