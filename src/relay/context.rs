//! What the pumps of one connection use, borrowed from the worker, the connection's account and its idle timer.

use crate::lifecycle::IdleTimer;

use super::meter::{Direction, Meter};
use super::resources::RelayResources;

/// What both directions of a connection use. It owns nothing, and is given to each poll of a pump, which therefore
/// needs to keep nothing of it.
pub struct PumpContext<'a> {
    /// The worker's.
    pub(super) resources: &'a RelayResources,
    /// Where this connection's bytes count.
    pub(super) meter: &'a Meter<'a>,
    /// Restarted by each move, in either direction.
    pub(super) idle_timer: &'a IdleTimer,
}

impl<'a> PumpContext<'a> {
    /// Lends them for as long as the connection, or one exchange on it, takes.
    pub fn new(resources: &'a RelayResources, meter: &'a Meter<'a>, idle_timer: &'a IdleTimer) -> Self {
        Self { resources, meter, idle_timer }
    }

    /// The connection is not idle: bytes came, of which the receiver took so many.
    pub fn moved(&self, direction: Direction, bytes: usize) {
        self.idle_timer.touch();
        if bytes > 0 {
            self.meter.add(direction, bytes);
        }
    }
}
