//! What hands small sends to the kernel: io_uring, many of them in one call, or each by itself, as epoll reports room
//! for it. Chosen at the start, for the whole process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::RelayEngine;
use crate::net;

/// The choice, and how many workers keep to it.
#[derive(Debug)]
pub struct Engine {
    wants_rings: bool,
    /// Why it was chosen, in words.
    reason: String,
    workers: usize,
    /// Workers whose ring works.
    rings: Arc<AtomicUsize>,
}

impl Engine {
    /// Tries whether io_uring works here, where it is wanted.
    ///
    /// # Errors
    /// It is required and doesn't work.
    pub fn choose(wanted: RelayEngine, workers: usize) -> io::Result<Arc<Self>> {
        let (wants_rings, reason) = match wanted {
            RelayEngine::Epoll => (false, "configured".to_owned()),
            RelayEngine::IoUring => net::probe_send_ring().map(|()| (true, "configured".to_owned()))?,
            RelayEngine::Auto => match net::probe_send_ring() {
                Ok(()) => (true, "it works here".to_owned()),
                Err(error) => (false, format!("io_uring does not work here: {error}")),
            },
        };
        Ok(Arc::new(Self { wants_rings, reason, workers, rings: Arc::default() }))
    }

    /// Opens the ring of this thread, a worker's. `true`: the worker has to run [`net::hand_over_each_turn`].
    pub fn start_on_worker(&self) -> bool {
        if !self.wants_rings {
            return false;
        }
        match net::open_send_ring(&self.rings) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "no io_uring for this worker: it sends without");
                false
            }
        }
    }

    pub fn name(&self) -> &'static str {
        if self.wants_rings { "io_uring" } else { "epoll" }
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Workers whose small sends go by io_uring.
    pub fn rings(&self) -> usize {
        self.rings.load(Ordering::Relaxed)
    }

    /// The others.
    pub fn without_ring(&self) -> usize {
        self.workers - self.rings()
    }
}
