//! A limit of connections at once, and the count of the open ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Debug)]
pub struct ConnectionLimit {
    max: AtomicUsize,
    active: AtomicUsize,
    /// Notified when the last connection ends.
    emptied: Notify,
}

/// The right to one connection; dropping it gives it back.
#[derive(Debug)]
pub struct Permit(Arc<ConnectionLimit>);

impl ConnectionLimit {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: AtomicUsize::new(max), active: AtomicUsize::new(0), emptied: Notify::new() })
    }

    /// One more, unless the limit is reached.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        // Counted first, so that one operation is enough. At the limit a refused connection is counted for a moment, in
        // which another may be refused although a place has just become free.
        if self.active.fetch_add(1, Ordering::Relaxed) >= self.max() {
            self.give_back();
            return None;
        }
        Some(Permit(self.clone()))
    }

    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// From now on at most `max`; open connections stay open.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub fn active(&self) -> usize {
        // Pairs with the Release in `give_back`: a thread that reads 0 sees all that the ended connections counted.
        self.active.load(Ordering::Acquire)
    }

    /// Waits until none is open. Safe to cancel.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Registered before the check: else the last connection could end unnoticed between the check and the wait.
            emptied.as_mut().enable();
            if self.active() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn give_back(&self) {
        if self.active.fetch_sub(1, Ordering::Release) == 1 {
            self.emptied.notify_waiters();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_given_back_can_be_taken_again() {
        let limit = ConnectionLimit::new(1);
        let permit = limit.try_acquire().expect("the first fits");
        assert!(limit.try_acquire().is_none());
        assert_eq!(limit.active(), 1);
        drop(permit);
        assert!(limit.try_acquire().is_some());
    }
}
