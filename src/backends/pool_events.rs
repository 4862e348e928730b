//! What a pool's backends have in common: the signals that something changed or that there is room again, and the clock
//! that their times are kept on.
//!
//! Doesn't know the backends.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use crate::lifecycle::Cutter;

/// One for each pool. The hot path reads two atomics and writes none.
#[derive(Debug)]
pub(super) struct PoolEvents {
    /// The pool's name in the log.
    pool: String,
    cutter: Cutter,
    epoch: Instant,
    generation: AtomicU64,
    /// Signalled with each new generation.
    changed: Notify,
    /// Milliseconds after `epoch` when a backend has to be looked at again; `u64::MAX`: never.
    next_event: AtomicU64,
    /// Clients that wait for room.
    waiting: AtomicUsize,
    room: Notify,
    is_retired: AtomicBool,
}

impl PoolEvents {
    pub(super) fn new(pool: &str, cutter: Cutter, epoch: Instant) -> Self {
        Self {
            pool: pool.to_owned(),
            cutter,
            epoch,
            generation: AtomicU64::new(0),
            changed: Notify::new(),
            next_event: AtomicU64::new(u64::MAX),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
            is_retired: AtomicBool::new(false),
        }
    }

    pub(super) fn pool(&self) -> &str {
        &self.pool
    }

    /// Reaches the connections of its backends.
    pub(super) fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    /// A backend's state changed, and it is to be looked at again at `next_event`.
    pub(super) fn changed(&self, next_event: Option<Instant>) {
        self.look_again_at(next_event);
        // Release: a table of this generation, or of a later one, is built from the state that was just written.
        self.generation.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until the generation is another than `seen`, and gives it. Safe to cancel.
    pub(super) async fn generation_after(&self, seen: u64) -> u64 {
        loop {
            // Made before the look: it then counts changes from the look on.
            let changed = self.changed.notified();
            let generation = self.generation();
            if generation != seen {
                return generation;
            }
            changed.await;
        }
    }

    pub(super) fn look_again_at(&self, at: Option<Instant>) {
        if let Some(at) = at {
            self.next_event.fetch_min(self.millis(at), Ordering::Release);
        }
    }

    /// Whether a backend is due to be looked at now; true for one caller only, who has to do it.
    pub(super) fn take_due_event(&self, now: Instant) -> bool {
        let due = self.next_event.load(Ordering::Acquire);
        due != u64::MAX
            && due <= self.millis(now)
            && self.next_event.compare_exchange(due, u64::MAX, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A connection ended: the longest waiting client may try again.
    pub(super) fn notify_one_waiter(&self) {
        // SeqCst: the other half of `QueueSlot::take`.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify_one();
        }
    }

    /// A backend may have come, or come back: every client that waits may try again.
    pub(super) fn notify_all_waiters(&self) {
        // Not `notify_waiters`: that reaches only those that wait at this moment, and keeps nothing for a client that
        // has taken its place in the queue and not begun to wait.
        (0..self.waiting.load(Ordering::SeqCst)).for_each(|_| self.room.notify_one());
    }

    pub(super) fn waiting(&self) -> &AtomicUsize {
        &self.waiting
    }

    pub(super) fn room(&self) -> &Notify {
        &self.room
    }

    /// The configuration has the pool no more.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    /// Time on the pool's clock.
    pub(super) fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}
