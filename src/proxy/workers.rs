//! The workers among themselves: how loaded each is, and a way to give a fresh connection to another.
//!
//! SO_REUSEPORT shares connections by a hash of their addresses: fair for thousands, not for a few long ones. A worker
//! that has clearly more than another gives new ones away before it has spent anything on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::telemetry::PerWorker;

use super::admitted::Admitted;

/// A worker keeps a connection unless it has this many more than the least loaded one, and a quarter: giving it away
/// costs a wake-up of the other.
const TOLERATED_SKEW: usize = 4;

/// All workers. The inboxes have no limit of their own: what is in them holds permits, and those are limited.
pub struct Workers {
    loads: PerWorker<AtomicUsize>,
    inboxes: Vec<UnboundedSender<Admitted>>,
}

/// Counts one connection of a worker while it exists.
pub(super) struct Load<'a>(&'a AtomicUsize);

impl Workers {
    /// As many as `workers`, and the inbox of each.
    pub fn new(workers: usize) -> (Arc<Self>, Vec<UnboundedReceiver<Admitted>>) {
        let (inboxes, receivers) = (0..workers).map(|_| unbounded_channel()).unzip();
        (Arc::new(Self { loads: PerWorker::new(workers), inboxes }), receivers)
    }

    /// How many workers there are.
    #[allow(clippy::len_without_is_empty, reason = "there is always a worker")]
    pub fn len(&self) -> usize {
        self.inboxes.len()
    }

    /// Counts a connection that `worker` serves.
    pub(super) fn count(&self, worker: usize) -> Load<'_> {
        let load = self.loads.worker(worker);
        load.fetch_add(1, Ordering::Relaxed);
        Load(load)
    }

    /// Gives the connection to a clearly less loaded worker; returns it where there is none.
    pub(super) fn rebalance(&self, from: usize, admitted: Admitted) -> Option<Admitted> {
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed));
        let (idlest, least) = loads.enumerate().min_by_key(|(_, load)| *load)?;
        let own = self.loads.worker(from).load(Ordering::Relaxed);
        if own <= least + least / 4 + TOLERATED_SKEW {
            return Some(admitted);
        }
        // The inbox of a worker that has ended returns it.
        self.inboxes[idlest].send(admitted).err().map(|back| back.0)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
