//! One worker's idle connections to backends, which wait for their next request.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::backends::Backend;
use crate::config::BackendKeepAlive;
use crate::lifecycle::BackendId;
use crate::net::Transport;

/// The idle connections of all backends.
pub(super) struct IdlePool {
    worker: usize,
    /// By the backend's address in memory: the entry's `Arc` keeps another backend from getting the same one.
    by_backend: RefCell<HashMap<*const Backend, IdleConnections>>,
}

/// The idle connections of one backend.
struct IdleConnections {
    backend: Arc<Backend>,
    idle_timeout: Duration,
    /// Each with the time since which it is idle, the oldest first.
    transports: VecDeque<(Transport, Instant)>,
}

impl IdleConnections {
    fn publish_count(&self, worker: usize) {
        self.backend.counters(worker).idle.store(self.transports.len(), Ordering::Relaxed);
    }
}

impl IdlePool {
    pub(super) fn new(worker: usize) -> Self {
        Self { worker, by_backend: RefCell::default() }
    }

    /// Takes the connection that was used last: the older ones are likelier to be closed by the backend at any moment,
    /// and are the ones to expire.
    pub(super) fn take(&self, backend: &Arc<Backend>) -> Option<Transport> {
        let mut by_backend = self.by_backend.borrow_mut();
        let idle = by_backend.get_mut(&Arc::as_ptr(backend))?;
        // One that the backend has ended, or sent something on unasked, is closed here instead.
        let usable = loop {
            match idle.transports.pop_back() {
                Some((transport, _)) if transport.is_idle() => break Some(transport),
                Some(_) => {}
                None => break None,
            }
        };
        idle.publish_count(self.worker);
        usable
    }

    /// Adds a connection, in place of the oldest if there are as many as allowed. It is closed instead if its backend
    /// is to get no further requests.
    pub(super) fn put(&self, backend: &Arc<Backend>, transport: Transport, settings: BackendKeepAlive, now: Instant) {
        if settings.idle_connections == 0 || !backend.accepts_idle() {
            return;
        }
        let mut by_backend = self.by_backend.borrow_mut();
        let idle = by_backend.entry(Arc::as_ptr(backend)).or_insert_with(|| IdleConnections {
            backend: backend.clone(),
            idle_timeout: settings.idle_timeout,
            transports: VecDeque::new(),
        });
        // After a reload that allows fewer, more than one has to go.
        while idle.transports.len() >= settings.idle_connections {
            idle.transports.pop_front();
        }
        // Listeners with different settings may share a backend: those used last count for all its connections.
        idle.idle_timeout = settings.idle_timeout;
        idle.transports.push_back((transport, now));
        idle.publish_count(self.worker);
    }

    /// Closes those of these backends.
    pub(super) fn close(&self, backends: &HashSet<BackendId>) {
        self.by_backend.borrow_mut().retain(|_, idle| {
            let stays = !backends.contains(&idle.backend.id());
            if !stays {
                idle.transports.clear();
                idle.publish_count(self.worker);
            }
            stays
        });
    }

    /// Closes those that were idle for too long, that the backend has ended, or whose backend gets no further requests.
    pub(super) fn expire(&self, now: Instant) {
        self.by_backend.borrow_mut().retain(|_, idle| {
            let (limit, accepts_idle) = (idle.idle_timeout, idle.backend.accepts_idle());
            let is_young = |since| now.saturating_duration_since(since) < limit;
            idle.transports.retain(|(transport, since)| accepts_idle && is_young(*since) && transport.is_idle());
            idle.publish_count(self.worker);
            // Without connections the entry goes too, and with it the last reference to a removed backend.
            !idle.transports.is_empty()
        });
    }
}
