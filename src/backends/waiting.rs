//! Waiting at a pool: for room on its backends, and for a retry within the budget.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::events::PoolEvents;

/// Retries that are always allowed, however few connections there are.
const LEAST_RETRIES: usize = 3;

/// A place in the queue of clients that wait for room. Dropping it leaves the queue, and passes on a call for it.
pub struct QueueSlot<'a> {
    events: &'a PoolEvents,
    /// Nobody waited before: whatever room came until now was told to nobody.
    is_first: Cell<bool>,
}

impl<'a> QueueSlot<'a> {
    /// The last place of a queue of at most `length`; `None`: it is full.
    pub(super) fn take(events: &'a PoolEvents, length: usize) -> Option<Self> {
        // SeqCst: a connection that ends either sees that somebody waits, or is seen to have ended.
        let ahead = events.waiting().fetch_add(1, Ordering::SeqCst);
        if ahead >= length {
            events.waiting().fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self { events, is_first: Cell::new(ahead == 0) })
    }

    /// Waits until a connection of the pool ended, first come, first served; the first to come is called at once. Safe to
    /// cancel: the call goes to the next.
    pub async fn wait_turn(&self) {
        if !self.is_first.take() {
            self.events.room_notify().notified().await;
        }
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.events.waiting().fetch_sub(1, Ordering::AcqRel);
    }
}

/// How many of a pool's connections may be retries at once: the rest waits, so that a failing backend's clients don't
/// all fall on the others in one instant (the idea of Finagle's and Envoy's retry budgets).
#[derive(Debug)]
pub(super) struct RetryBudget {
    percent: AtomicUsize,
    connections: AtomicUsize,
    retrying: AtomicUsize,
    freed: Notify,
}

/// The right to one retry; dropping it gives it back.
pub struct RetryPermit<'a>(&'a RetryBudget);

/// Counts one client connection of the pool while it lives.
pub struct BudgetShare<'a>(&'a RetryBudget);

impl RetryBudget {
    pub(super) fn new(percent: u8) -> Self {
        let (connections, retrying) = Default::default();
        Self { percent: AtomicUsize::new(percent.into()), connections, retrying, freed: Notify::new() }
    }

    pub(super) fn set_percent(&self, percent: u8) {
        self.percent.store(percent.into(), Ordering::Relaxed);
    }

    pub(super) fn count_connection(&self) -> BudgetShare<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        BudgetShare(self)
    }

    /// Waits for a retry within the budget, at most `limit`. Safe to cancel.
    pub(super) async fn retry(&self, limit: Duration) -> Option<RetryPermit<'_>> {
        let granted = async {
            loop {
                let freed = self.freed.notified();
                if let Some(retry) = self.try_retry() {
                    return retry;
                }
                freed.await;
            }
        };
        tokio::time::timeout(limit, granted).await.ok()
    }

    fn try_retry(&self) -> Option<RetryPermit<'_>> {
        let allowed =
            (self.connections.load(Ordering::Relaxed) * self.percent.load(Ordering::Relaxed) / 100).max(LEAST_RETRIES);
        if self.retrying.fetch_add(1, Ordering::AcqRel) >= allowed {
            self.retrying.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(RetryPermit(self))
    }
}

impl Drop for RetryPermit<'_> {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
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
        let budget = RetryBudget::new(20);
        let few: Vec<_> = (0..4).map_while(|_| budget.try_retry()).collect();
        assert_eq!(few.len(), 3);
        drop(few);
        let _members: Vec<_> = (0..50).map(|_| budget.count_connection()).collect();
        let many: Vec<_> = (0..50).map_while(|_| budget.try_retry()).collect();
        assert_eq!(many.len(), 10);
    }
}
