//! What both pumps of one connection use, borrowed from the worker, the connection's counters and its idle timer.

use crate::lifecycle::IdleTimer;

use super::byte_meter::{Direction, Meter};
use super::relay_resources::RelayResources;

/// Passed to each poll of a pump, so that the pump itself, of which each idle connection has two, stays small.
pub struct PumpContext<'a> {
    pub(super) resources: &'a RelayResources,
    pub(super) meter: &'a Meter<'a>,
    /// Restarted by each move, in either direction.
    pub(super) idle_timer: &'a IdleTimer,
}

impl<'a> PumpContext<'a> {
    pub fn new(resources: &'a RelayResources, meter: &'a Meter<'a>, idle_timer: &'a IdleTimer) -> Self {
        Self { resources, meter, idle_timer }
    }

    /// Bytes were received, of which the receiver took this many, perhaps none: the connection is not idle.
    pub fn moved(&self, direction: Direction, bytes: usize) {
        self.idle_timer.touch();
        if bytes > 0 {
            self.meter.add(direction, bytes);
        }
    }
}
