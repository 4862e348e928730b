//! What travels from the accept loop to the task that serves a connection, on this worker or on another.

use crate::lifecycle::{ClientPermit, Permit};
use crate::net::Accepted;
use crate::relay::Tally;

use super::arrival::Arrival;
use super::record::Record;

/// An admitted connection, which its task owns to the end. Dropped before that has run, at the end of the drain, it is
/// reset, counted and logged as any other.
pub struct Admitted {
    /// Until its task runs.
    accepted: Option<Accepted>,
    pub(super) arrival: Arrival,
    pub(super) permits: Permits,
}

/// A connection's place within the limits of the process, of the listener and of its client; dropped, it is free again.
pub(super) struct Permits {
    pub(super) _process: Permit,
    pub(super) _listener: Permit,
    /// `None`: clients have no limit, or the address is not known yet. Boxed: few listeners have such a limit.
    pub(super) client: Option<Box<ClientPermit>>,
}

impl Admitted {
    pub(super) fn new(accepted: Accepted, arrival: Arrival, permits: Permits) -> Self {
        Self { accepted: Some(accepted), arrival, permits }
    }

    /// Its task runs, and has to account for it from now on.
    pub(super) fn begin(&mut self) -> Accepted {
        self.accepted.take().expect("it has one task")
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(accepted) = self.accepted.take() {
            // Before the client can see it, as a refusal.
            drop(Record::open(&self.arrival, &Tally::default()));
            accepted.refuse();
        }
    }
}
