//! The retry budget: how many of a pool's connections may be further attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::pool_events::PoolEvents;

/// Retries that are always allowed, however few connections there are.
const LEAST_RETRIES: usize = 3;

/// How many of a pool's connections may be retries at once: the rest waits, so that a failing backend's clients don't
/// all fall on the others in one instant (the idea of Finagle's and Envoy's retry budgets).
#[derive(Debug)]
pub(super) struct RetryBudget {
    percent: AtomicUsize,
    connections: AtomicUsize,
    retrying: AtomicUsize,
    /// Clients that wait for budget without a place in the queue.
    wanted: AtomicUsize,
    /// Signalled when there may be budget again; clients that wait in the queue are called instead.
    freed: Notify,
    events: Arc<PoolEvents>,
}

/// The right to one retry; dropping it gives it back.
pub struct RetryPermit<'a>(&'a RetryBudget);

/// Counts one client connection of the pool until dropped.
pub struct BudgetShare<'a>(&'a RetryBudget);

impl RetryBudget {
    pub(super) fn new(percent: u8, events: Arc<PoolEvents>) -> Self {
        Self {
            percent: AtomicUsize::new(percent.into()),
            connections: AtomicUsize::default(),
            retrying: AtomicUsize::default(),
            wanted: AtomicUsize::default(),
            freed: Notify::new(),
            events,
        }
    }

    pub(super) fn set_percent(&self, percent: u8) {
        self.percent.store(percent.into(), Ordering::Relaxed);
        self.freed.notify_one();
    }

    pub(super) fn count_connection(&self) -> BudgetShare<'_> {
        // SeqCst, here and where it is wanted: either this sees that somebody waits, or they see the larger budget.
        self.connections.fetch_add(1, Ordering::SeqCst);
        if self.wanted.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
        BudgetShare(self)
    }

    /// Waits for a retry within the budget, at most `limit`. Safe to cancel.
    pub(super) async fn retry(&self, limit: Duration) -> Option<RetryPermit<'_>> {
        let granted = async {
            let _wanted = Wanted::new(&self.wanted);
            loop {
                if let Some(retry) = self.try_retry() {
                    // Calls that came at once were kept as one.
                    if self.wanted.load(Ordering::SeqCst) > 1 && self.has_retry() {
                        self.freed.notify_one();
                    }
                    return retry;
                }
                // A permit that was given back since then has left its call: `notify_one` keeps one while nobody waits.
                self.freed.notified().await;
            }
        };
        tokio::time::timeout(limit, granted).await.ok()
    }

    pub(super) fn has_retry(&self) -> bool {
        self.retrying.load(Ordering::SeqCst) < self.allowed()
    }

    fn allowed(&self) -> usize {
        (self.connections.load(Ordering::SeqCst) * self.percent.load(Ordering::Relaxed) / 100).max(LEAST_RETRIES)
    }

    /// A retry within the budget, if there is one now.
    pub(super) fn try_retry(&self) -> Option<RetryPermit<'_>> {
        let allowed = self.allowed();
        // Never above the limit, not even for a moment: an attempt at that moment would fail for nothing, and its
        // client would sleep though there is budget.
        let one_more = |retrying| (retrying < allowed).then_some(retrying + 1);
        self.retrying.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).ok()?;
        Some(RetryPermit(self))
    }
}

/// Counts one that waits for budget.
struct Wanted<'a>(&'a AtomicUsize);

impl<'a> Wanted<'a> {
    fn new(wanted: &'a AtomicUsize) -> Self {
        wanted.fetch_add(1, Ordering::SeqCst);
        Self(wanted)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for RetryPermit<'_> {
    fn drop(&mut self) {
        // SeqCst, also in `has_retry`: as a backend's connections, which `Queue::take_place` explains.
        self.0.retrying.fetch_sub(1, Ordering::SeqCst);
        self.0.freed.notify_one();
        self.0.events.queue().call_one();
    }
}

impl Drop for BudgetShare<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_share_of_the_connections_and_at_least_three() {
        let events = Arc::new(PoolEvents::new("app", crate::lifecycle::Cutter::default(), std::time::Instant::now()));
        let budget = RetryBudget::new(20, events);
        let few: Vec<_> = (0..4).map_while(|_| budget.try_retry()).collect();
        assert_eq!(few.len(), 3);
        drop(few);
        let _members: Vec<_> = (0..50).map(|_| budget.count_connection()).collect();
        let many: Vec<_> = (0..50).map_while(|_| budget.try_retry()).collect();
        assert_eq!(many.len(), 10);
    }
}
