//! Orders to cut connections, from whoever decides it on one thread to the workers that have them.
//!
//! An order reaches every connection of a backend that was picked before it: a connection notes its backend in the same
//! step of its task in which it picks it, and its worker follows the order between two steps. One that is picked later
//! sees the state for which the order was given.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Tells one backend from all others, also from those that are gone.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(NonZeroU32);

impl BackendId {
    /// Of a backend that is new. Unique until four thousand million have come and gone.
    pub fn unique() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        loop {
            if let Some(id) = NonZeroU32::new(LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1)) {
                return Self(id);
            }
        }
    }
}

/// Why a connection is cut from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A health check has taken its backend out.
    BackendDown,
    /// Its backend is a backup, and one of a lower rank is back.
    BackupClosed,
    /// An operator has removed its backend at once.
    BackendRemoved,
}

/// Which connections a worker is to cut.
#[derive(Clone, Debug)]
pub struct CutOrder {
    /// Those of these backends.
    pub backends: Arc<HashSet<BackendId>>,
    pub why: Cut,
}

/// Gives orders to all workers. The default reaches none.
#[derive(Clone, Debug, Default)]
pub struct Cutter {
    workers: Arc<[UnboundedSender<CutOrder>]>,
}

impl Cutter {
    /// Also returns the ends at which the workers receive. The channels need no bound: an order is as small as the
    /// change of a state that it follows from, and workers take all that wait.
    pub fn new(workers: usize) -> (Self, Vec<UnboundedReceiver<CutOrder>>) {
        let (workers, orders): (Vec<_>, _) = (0..workers).map(|_| unbounded_channel()).unzip();
        (Self { workers: workers.into() }, orders)
    }

    /// Has the connections of these backends cut, those that are idle in a pool too.
    pub fn cut(&self, backends: HashSet<BackendId>, why: Cut) {
        if backends.is_empty() {
            return;
        }
        let backends = Arc::new(backends);
        for worker in self.workers.iter() {
            // A worker that has ended has no connections.
            let _ = worker.send(CutOrder { backends: backends.clone(), why });
        }
    }
}
