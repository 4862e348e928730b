//! The queue of clients that wait for room on a pool's backends.
//!
//! Knows nothing of the backends: a client that is called has to find out by itself whether one has room for it.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::pool_events::PoolEvents;

/// A place in the queue of clients that wait for room. Dropping it leaves the queue, and passes on a call for it.
pub struct QueueSlot<'a> {
    events: &'a PoolEvents,
    /// Nobody waited before, so that no connection that ended until now has called anybody.
    is_first: Cell<bool>,
}

impl<'a> QueueSlot<'a> {
    /// The last place of a queue of at most `length`; `None`: it is full.
    pub(super) fn take(events: &'a PoolEvents, length: usize) -> Option<Self> {
        // The other half of `Backend::release`, which gives back its connection and then reads this count, while a
        // client adds itself to the count and then looks for room. SeqCst puts all four in one order: either the end of
        // the connection sees that somebody waits, or the client sees that the connection has ended. With less, each
        // could miss the other, and the client would sleep beside a free backend.
        let ahead = events.waiting().fetch_add(1, Ordering::SeqCst);
        if ahead >= length {
            events.waiting().fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self { events, is_first: Cell::new(ahead == 0) })
    }

    /// Waits until a connection of the pool ended, first come, first served; the first to come is called at once. Safe
    /// to cancel: the call goes to the next.
    pub async fn wait_turn(&self) {
        // The first looks once more without a call: a connection may have ended after it found all backends full and
        // before it was counted here, and such an end calls nobody. For those behind it the ends since then do.
        if !self.is_first.take() {
            self.events.room().notified().await;
        }
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.events.waiting().fetch_sub(1, Ordering::AcqRel);
    }
}
