//! The balance between workers: how loaded each is, and the inbox through which it gets connections from the others.
//!
//! SO_REUSEPORT spreads connections by a hash of their addresses: evenly for thousands, unevenly for a few long ones. A
//! worker that has clearly more than another passes new ones on, before it has spent anything on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::lifecycle::ConnectionLimit;
use crate::telemetry::PerWorker;

use super::admitted::Admitted;

/// A worker keeps a connection unless it has this many more than the least loaded one, and a quarter more: to pass it
/// on costs a wake-up of the other thread.
const TOLERATED_SKEW: usize = 4;

/// All workers. The inboxes need no limit of their own: each connection in them holds permits, which are limited.
pub struct Workers {
    loads: PerWorker<AtomicUsize>,
    inboxes: Vec<UnboundedSender<Admitted>>,
    /// Idle connections to backends, of all workers together: they are files, of which clients need the rest.
    idle_connections: Arc<ConnectionLimit>,
}

/// Counts one connection of a worker while it exists.
pub(super) struct Load<'a>(&'a AtomicUsize);

impl Workers {
    /// Also returns the receiving ends of the inboxes, one for each worker.
    pub fn new(
        workers: usize,
        idle_connections: Arc<ConnectionLimit>,
    ) -> (Arc<Self>, Vec<UnboundedReceiver<Admitted>>) {
        let (inboxes, receivers) = (0..workers).map(|_| unbounded_channel()).unzip();
        (Arc::new(Self { loads: PerWorker::new(workers), inboxes, idle_connections }), receivers)
    }

    #[allow(clippy::len_without_is_empty, reason = "there is always a worker")]
    pub fn len(&self) -> usize {
        self.inboxes.len()
    }

    pub(super) fn idle_connections(&self) -> &Arc<ConnectionLimit> {
        &self.idle_connections
    }

    /// Counts a connection that `worker` serves.
    pub(super) fn count(&self, worker: usize) -> Load<'_> {
        let load = self.loads.worker(worker);
        load.fetch_add(1, Ordering::Relaxed);
        Load(load)
    }

    /// Passes the connection on to a clearly less loaded worker; returns it if there is none.
    pub(super) fn rebalance(&self, from: usize, admitted: Admitted) -> Option<Admitted> {
        // Relaxed, and read one after the other: a decision on slightly old loads is as good.
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed));
        let (idlest, least) = loads.enumerate().min_by_key(|(_, load)| *load)?;
        let own = self.loads.worker(from).load(Ordering::Relaxed);
        if own <= least + least / 4 + TOLERATED_SKEW {
            return Some(admitted);
        }
        // A worker that has ended doesn't take it: then it stays here.
        self.inboxes[idlest].send(admitted).err().map(|error| error.0)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
