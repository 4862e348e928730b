//! A connection that was let in: what travels from the accept loop to the task that serves it, here or on another
//! worker.

use std::sync::Arc;

use crate::lifecycle::{ClientPermit, ConnectionId, Permit};
use crate::net::{Accepted, Peer};

use super::frontend::Frontend;

/// A connection that was let in and waits for its task.
pub struct Admitted {
    pub(super) accepted: Accepted,
    pub(super) admission: Admission,
}

/// What a connection was let in with; its task keeps it to the end.
pub(super) struct Admission {
    pub(super) id: ConnectionId,
    pub(super) frontend: Arc<Frontend>,
    pub(super) peer: Peer,
    pub(super) permits: Permits,
}

/// The right to a connection: of the process, of the listener, and of the client where it has a limit and is known.
pub(super) struct Permits {
    pub(super) _process: Permit,
    pub(super) _listener: Permit,
    /// Boxed: few listeners have such a limit.
    pub(super) client: Option<Box<ClientPermit>>,
}
