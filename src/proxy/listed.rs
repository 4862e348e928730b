//! What the task of a connection owns.

use std::rc::Rc;
use std::time::Duration;

use crate::lifecycle::IdleTimer;

use super::account::Account;
use super::admitted::Admitted;
use super::connections::Connection;
use super::frontend::Frontend;
use super::worker::Worker;

/// A connection in its worker's list, which it leaves when this is dropped.
pub(super) struct Listed {
    pub(super) worker: Rc<Worker>,
    connection: Rc<Connection>,
}

impl Listed {
    pub(super) fn new(worker: &Rc<Worker>, admitted: Admitted) -> Self {
        // Idle time begins when a backend is to be found; what comes before has limits of its own.
        let idle_timer = worker.idle_timeouts.start(Duration::MAX);
        Self { worker: worker.clone(), connection: worker.connections.enter(admitted, idle_timer) }
    }

    pub(super) fn account(&self) -> &Account {
        self.connection.account()
    }

    pub(super) fn frontend(&self) -> &Frontend {
        &self.account().frontend
    }

    pub(super) fn idle_timer(&self) -> &IdleTimer {
        &self.connection.idle_timer
    }

    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.worker.connections.leave(&self.connection);
    }
}
