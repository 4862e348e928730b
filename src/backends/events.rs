//! What a pool's backends tell those who pick among them: something changed, there is room again.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

/// One for each pool. The hot path reads two atomics and writes none.
#[derive(Debug)]
pub(super) struct PoolEvents {
    epoch: Instant,
    generation: AtomicU64,
    /// Milliseconds after `epoch` when the clock asks for something; `u64::MAX`: nothing.
    next_event: AtomicU64,
    /// Clients that wait for room.
    waiting: AtomicUsize,
    notify_one_waiter: Notify,
}

impl PoolEvents {
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            generation: AtomicU64::new(0),
            next_event: AtomicU64::new(u64::MAX),
            waiting: AtomicUsize::new(0),
            notify_one_waiter: Notify::new(),
        }
    }

    /// A backend's state changed, and it asks to be looked at again at `next_event`.
    pub(super) fn changed(&self, next_event: Option<Instant>) {
        self.look_again_at(next_event);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(super) fn look_again_at(&self, at: Option<Instant>) {
        if let Some(at) = at {
            self.next_event.fetch_min(self.millis(at), Ordering::Release);
        }
    }

    /// Whether the clock asks for something now; who is told so, does it.
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
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.notify_one_waiter.notify_one();
        }
    }

    /// A backend is there (again): everybody who waits may try.
    pub(super) fn notify_all_waiters(&self) {
        (0..self.waiting.load(Ordering::SeqCst)).for_each(|_| self.notify_one_waiter.notify_one());
    }

    pub(super) fn waiting(&self) -> &AtomicUsize {
        &self.waiting
    }

    pub(super) fn room_notify(&self) -> &Notify {
        &self.notify_one_waiter
    }

    /// Time on the pool's clock.
    pub(super) fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}
