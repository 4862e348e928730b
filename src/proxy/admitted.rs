//! What travels from the accept loop to the task that serves a connection, on this worker or on another.

use std::sync::Arc;

use crate::lifecycle::{ClientPermit, ConnectionId, Permit};
use crate::net::{Accepted, Peer};

use super::frontend::Frontend;

/// An admitted connection that waits for its task.
pub struct Admitted {
    pub(super) accepted: Accepted,
    pub(super) admission: Admission,
}

/// What a connection was admitted with; its task owns it to the end.
pub(super) struct Admission {
    pub(super) id: ConnectionId,
    pub(super) frontend: Arc<Frontend>,
    pub(super) peer: Peer,
    pub(super) permits: Permits,
}

/// A connection's place within the limits of the process, of the listener and of its client; dropped, it is free again.
pub(super) struct Permits {
    pub(super) _process: Permit,
    pub(super) _listener: Permit,
    /// `None`: clients have no limit, or the address is not known yet. Boxed: few listeners have such a limit.
    pub(super) client: Option<Box<ClientPermit>>,
}
