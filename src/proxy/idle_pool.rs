//! Idle connections of one worker to backends, kept for the next request.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::backends::Backend;
use crate::config::BackendKeepAlive;
use crate::net::Transport;

/// By the backend's place in memory, which its `Arc` in the shelf keeps from being used again.
pub(super) struct IdlePool {
    worker: usize,
    by_backend: RefCell<HashMap<*const Backend, IdleConnections>>,
}

/// Those of one backend, the oldest first.
struct IdleConnections {
    backend: Arc<Backend>,
    idle_timeout: Duration,
    streams: VecDeque<(Transport, Instant)>,
}

impl IdleConnections {
    fn publish_count(&self, worker: usize) {
        self.backend.counters(worker).idle.store(self.streams.len(), Ordering::Relaxed);
    }
}

impl IdlePool {
    pub(super) fn new(worker: usize) -> Self {
        Self { worker, by_backend: RefCell::default() }
    }

    /// Takes the connection that was used last; one that the backend has ended, or sent something on, is never given.
    pub(super) fn take(&self, backend: &Arc<Backend>) -> Option<Transport> {
        let mut by_backend = self.by_backend.borrow_mut();
        let idle = by_backend.get_mut(&Arc::as_ptr(backend))?;
        let mut youngest = std::iter::from_fn(|| idle.streams.pop_back());
        let quiet = youngest.find(|(stream, _)| stream.is_idle());
        idle.publish_count(self.worker);
        quiet.map(|(stream, _)| stream)
    }

    /// Keeps a connection in place of the oldest where there are enough, unless its backend gets no further requests.
    pub(super) fn put(&self, backend: &Arc<Backend>, stream: Transport, settings: BackendKeepAlive, now: Instant) {
        if settings.idle_connections == 0 || !backend.accepts_idle() {
            return;
        }
        let mut by_backend = self.by_backend.borrow_mut();
        let idle = by_backend.entry(Arc::as_ptr(backend)).or_insert_with(|| IdleConnections {
            backend: backend.clone(),
            idle_timeout: settings.idle_timeout,
            streams: VecDeque::new(),
        });
        // More than one where a reload allows fewer.
        while idle.streams.len() >= settings.idle_connections {
            idle.streams.pop_front();
        }
        idle.idle_timeout = settings.idle_timeout;
        idle.streams.push_back((stream, now));
        idle.publish_count(self.worker);
    }

    /// Closes those that were idle for too long, that the backend has ended, or whose backend gets no further requests.
    pub(super) fn expire(&self, now: Instant) {
        self.by_backend.borrow_mut().retain(|_, idle| {
            let (limit, accepts_idle) = (idle.idle_timeout, idle.backend.accepts_idle());
            let is_young = |since| now.saturating_duration_since(since) < limit;
            idle.streams.retain(|(stream, since)| accepts_idle && is_young(*since) && stream.is_idle());
            idle.publish_count(self.worker);
            !idle.streams.is_empty()
        });
    }
}
