//! One worker's idle connections to backends, which wait for their next request.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::backends::Backend;
use crate::config::BackendKeepAlive;
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
    /// Each with the time at which it expires, by its own listener's settings; in the order in which they came.
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
        let idle = by_backend
            .entry(Arc::as_ptr(backend))
            .or_insert_with(|| IdleConnections { backend: backend.clone(), transports: VecDeque::new() });
        // After a reload that allows fewer, more than one has to go.
        while idle.transports.len() >= settings.idle_connections {
            idle.transports.pop_front();
        }
        idle.transports.push_back((transport, now + settings.idle_timeout));
        idle.publish_count(self.worker);
    }

    /// Closes those that were idle for too long, that the backend has ended, or whose backend gets no further requests.
    pub(super) fn expire(&self, now: Instant) {
        self.by_backend.borrow_mut().retain(|_, idle| {
            let accepts_idle = idle.backend.accepts_idle();
            idle.transports.retain(|(transport, expires)| accepts_idle && now < *expires && transport.is_idle());
            idle.publish_count(self.worker);
            // Without connections the entry goes too, and with it the last reference to a removed backend.
            !idle.transports.is_empty()
        });
    }
}
