//! How many connections a worker has, whether their tasks run or are still to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lifecycle::{DrainWatch, Phase};
use crate::telemetry::Cause;

/// One worker, as all of them see it. On cache lines of its own, as each connection of the worker writes to it.
#[repr(align(128))]
pub(super) struct WorkerLoad {
    worker: usize,
    connections: AtomicUsize,
    drain: DrainWatch,
}

/// Counts one connection of a worker while it exists.
pub(super) struct Load(Arc<WorkerLoad>);

impl WorkerLoad {
    pub(super) fn new(worker: usize, drain: DrainWatch) -> Arc<Self> {
        Arc::new(Self { worker, connections: AtomicUsize::new(0), drain })
    }

    /// Relaxed: decisions on slightly old loads are as good.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Load {
    pub(super) fn count(worker: &Arc<WorkerLoad>) -> Self {
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Self(worker.clone())
    }

    /// Which worker's it is, from 0.
    pub(super) fn worker(&self) -> usize {
        self.0.worker
    }

    /// The cause of a connection that was dropped before it had ended.
    pub(super) fn cause_of_cut(&self) -> Cause {
        if self.0.drain.phase() >= Phase::Closing { Cause::DrainForced } else { Cause::Internal }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
