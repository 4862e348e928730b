//! What the connections of one worker share: idle timeouts, buffers, idle backend connections, and the phase of the
//! drain. Stays on that worker's thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::lifecycle::{ConnectionIds, CutOrder, DrainWatch, IdleTimeouts, Phase};
use crate::relay::RelayResources;

use super::connections::Connections;
use super::idle_pool::IdlePool;
use super::workers::Workers;

/// During a drain, an HTTP client that sends no request within this time is closed.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// A worker wakes its connections for the drain at this pace: 1,000 a second, or all within 5 seconds.
const WOKEN_AT_ONCE: usize = 10;
const WAKE_PAUSE: Duration = Duration::from_millis(10);
/// So many connections are cut in a row: to close one takes some ten microseconds.
const CUT_AT_ONCE: usize = 64;
const MOST_WAKE_PAUSES: usize = 500;

pub struct Worker {
    /// Which worker this is, from 0.
    pub id: usize,
    pub idle_timeouts: Rc<IdleTimeouts>,
    pub drain: DrainWatch,
    /// All workers, this one among them.
    pub workers: Arc<Workers>,
    pub(super) connection_ids: ConnectionIds,
    pub(super) connections: Connections,
    pub(super) resources: RelayResources,
    pub(super) idle_pool: IdlePool,
    /// Where the heads of requests and responses are written; cleared before each use.
    pub(super) draft: RefCell<Vec<u8>>,
    /// A copy of the drain's phase: each request looks at it, which would take the watch's lock.
    phase: Cell<Phase>,
}

impl Worker {
    /// `shortest_limit` is the shortest time limit of any listener: it sets how finely idle time is measured.
    pub fn new(
        id: usize,
        shortest_limit: Duration,
        drain: DrainWatch,
        workers: Arc<Workers>,
        resources: RelayResources,
    ) -> Rc<Self> {
        Rc::new(Self {
            id,
            idle_timeouts: IdleTimeouts::new(shortest_limit, Instant::now()),
            drain,
            connection_ids: ConnectionIds::new(id, workers.len()),
            connections: Connections::default(),
            idle_pool: IdlePool::new(id, workers.idle_connections().clone()),
            workers,
            resources,
            draft: RefCell::default(),
            phase: Cell::new(Phase::Running),
        })
    }

    /// Wakes the connections whose idle limit has passed, and closes backend connections that were idle for too long.
    pub fn expire(&self, now: Instant) {
        self.idle_timeouts.expire(now);
        self.idle_pool.expire(now);
    }

    /// Cuts the connections of some backends. Those that wait are woken, and end by themselves.
    pub async fn cut(&self, order: &CutOrder) {
        self.idle_pool.close(&order.backends);
        for some in self.idle_timeouts.cut(order).chunks(CUT_AT_ONCE) {
            some.iter().for_each(Waker::wake_by_ref);
            // The worker's other connections have their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Follows the drain, and wakes the connections that wait for a request.
    pub async fn follow_drain(&self) {
        let mut drain = self.drain.clone();
        drain.reached(Phase::Leaving).await;
        self.phase.set(Phase::Leaving);
        drain.reached(Phase::Closing).await;
        // A busy client learns of it by `Connection: close` in its next answer. Closed at once, it could lose a request
        // that is on its way.
        tokio::time::sleep(IDLE_GRACE).await;
        self.phase.set(Phase::Closing);
        let wakers = self.idle_timeouts.wakers();
        // Paced: closed clients reconnect elsewhere, and all of them at once would overload that place.
        for some in wakers.chunks(WOKEN_AT_ONCE.max(wakers.len() / MOST_WAKE_PAUSES)) {
            some.iter().for_each(Waker::wake_by_ref);
            tokio::time::sleep(WAKE_PAUSE).await;
        }
    }

    /// The drain has begun: HTTP clients are asked to close.
    pub(super) fn is_leaving(&self) -> bool {
        self.phase.get() >= Phase::Leaving
    }

    /// No more connections are accepted: an HTTP client without a request under way is closed.
    pub(super) fn is_closing(&self) -> bool {
        self.phase.get() >= Phase::Closing
    }
}
