//! What the connections of one worker share: its clock of idle timeouts, buffers, idle backend connections, and its
//! view of the drain. Stays on that worker's thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::lifecycle::{ConnectionIds, DrainWatch, IdleTimeouts, Phase};
use crate::relay::RelayResources;
use crate::telemetry::Cause;

use super::idle_pool::IdlePool;
use super::workers::Workers;

/// During a drain, an HTTP client that asks for nothing in this time is closed.
const QUIET: Duration = Duration::from_secs(1);
/// A worker wakes its connections for the drain at this pace: 1,000 in a second, or all within 5 seconds.
const WOKEN_AT_ONCE: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);
const MOST_PAUSES: usize = 500;

/// One worker.
pub struct Worker {
    /// Which worker this is, from 0.
    pub id: usize,
    /// When each of its connections has been idle for too long.
    pub idle_timeouts: Rc<IdleTimeouts>,
    /// How far the stop has come.
    pub drain: DrainWatch,
    /// All workers, this one among them.
    pub workers: Arc<Workers>,
    pub(super) connection_ids: ConnectionIds,
    pub(super) resources: RelayResources,
    /// Connections to backends that wait for their next request.
    pub(super) idle_pool: IdlePool,
    /// Where heads are written; cleared before each use.
    pub(super) draft: RefCell<Vec<u8>>,
    /// The phase as this worker knows it: looked at for each request, so without the watch's lock.
    phase: Cell<Phase>,
}

impl Worker {
    /// A worker without connections; its listeners' limits are `shortest_limit` or longer.
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
            workers,
            resources,
            idle_pool: IdlePool::new(id),
            draft: RefCell::default(),
            phase: Cell::new(Phase::Running),
        })
    }

    /// Wakes the connections that were idle for too long, and closes such backend connections.
    pub fn expire(&self, now: Instant) {
        self.idle_timeouts.expire(now);
        self.idle_pool.expire(now);
    }

    /// Follows the drain, and wakes the connections that wait for a request.
    pub async fn follow_drain(&self) {
        let mut drain = self.drain.clone();
        drain.reached(Phase::Leaving).await;
        self.phase.set(Phase::Leaving);
        drain.reached(Phase::Closing).await;
        // Busy clients learn of it with their next answer; closed now, they would lose the request that is on its way.
        tokio::time::sleep(QUIET).await;
        self.phase.set(Phase::Closing);
        let wakers = self.idle_timeouts.wakers();
        // Paced: clients that are sent away reconnect elsewhere, and all of them at once would be a storm there.
        for some in wakers.chunks(WOKEN_AT_ONCE.max(wakers.len() / MOST_PAUSES)) {
            some.iter().for_each(Waker::wake_by_ref);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Why something was dropped before it had ended.
    pub(super) fn cause_of_a_cut(&self) -> Cause {
        if self.drain.phase() >= Phase::Closing { Cause::DrainForced } else { Cause::Internal }
    }

    /// The drain has begun: HTTP clients are asked to use another connection.
    pub(super) fn is_leaving(&self) -> bool {
        self.phase.get() >= Phase::Leaving
    }

    /// Accepts no more: an HTTP client without a request under way is closed.
    pub(super) fn is_closing(&self) -> bool {
        self.phase.get() >= Phase::Closing
    }
}
