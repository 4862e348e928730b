//! What travels from the accept loop to the task that serves a connection, on this worker or on another.

use std::cell::{Cell, OnceCell};

use crate::lifecycle::{ClientPermit, Permit};
use crate::net::Accepted;

use super::account::Account;
use super::record::Record;

/// An admitted connection, which exists to its end. Dropped before its task has run, at the end of the drain, it is
/// reset, counted and logged as any other.
pub struct Admitted {
    /// Until its task runs.
    accepted: Cell<Option<Accepted>>,
    pub(super) account: Account,
    pub(super) permits: Permits,
}

/// A connection's place within the limits of the process, of the listener and of its client; dropped, it is free again.
pub(super) struct Permits {
    pub(super) _process: Permit,
    pub(super) _listener: Permit,
    /// Empty: clients have no limit, or the address is not known yet. Boxed: few listeners have such a limit.
    pub(super) client: OnceCell<Box<ClientPermit>>,
}

impl Admitted {
    pub(super) fn new(accepted: Accepted, account: Account, permits: Permits) -> Self {
        Self { accepted: Cell::new(Some(accepted)), account, permits }
    }

    /// Its task runs, and has to account for it from now on.
    pub(super) fn begin(&self) -> Accepted {
        self.accepted.take().expect("it has one task")
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(accepted) = self.accepted.take() {
            // Before the client can see it, as a refusal.
            drop(Record::open(&self.account));
            accepted.refuse();
        }
    }
}
