//! What a pool's backends have in common: the signals that something changed or that there is room again, the queue of
//! those who wait for it, and the clock that their times are kept on.
//!
//! Doesn't know the backends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::lifecycle::Cutter;

use super::queue::Queue;

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
    /// Signalled when `next_event` comes sooner than it did, or somebody begins to wait.
    event_moved: Notify,
    queue: Queue,
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
            event_moved: Notify::new(),
            queue: Queue::default(),
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
            let at = self.millis_rounded_up(at);
            if at < self.next_event.fetch_min(at, Ordering::Release) {
                self.event_moved.notify_one();
            }
        }
    }

    /// When a backend has to be looked at again; `None`: never.
    pub(super) fn next_event(&self) -> Option<Instant> {
        let due = self.next_event.load(Ordering::Acquire);
        (due != u64::MAX).then(|| self.epoch + Duration::from_millis(due))
    }

    /// Waits until the next event may come sooner, or matter to somebody. For one task only. Safe to cancel.
    pub(super) async fn event_moved(&self) {
        self.event_moved.notified().await;
    }

    /// Somebody waits: nobody but the clock may notice the next event.
    pub(super) fn watch_events(&self) {
        self.event_moved.notify_one();
    }

    /// Whether a backend is due to be looked at now; true for one caller only, who has to do it.
    pub(super) fn take_due_event(&self, now: Instant) -> bool {
        let due = self.next_event.load(Ordering::Acquire);
        due != u64::MAX
            && due <= self.millis_rounded_up(now)
            && self.next_event.compare_exchange(due, u64::MAX, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The clients that wait for room.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
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

    /// The same, but not before `at`: who sleeps until then must find that the time has come.
    fn millis_rounded_up(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}
