//! One worker's idle connections to backends, which wait for their next request.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::backends::Backend;
use crate::config::{BackendKeepAlive, TlsTo};
use crate::lifecycle::{BackendId, ConnectionLimit, Permit};
use crate::net::Transport;

/// The idle connections of all backends.
pub(super) struct IdlePool {
    worker: usize,
    /// Of all workers together.
    limit: Arc<ConnectionLimit>,
    /// By the backend's address in memory: the entry's `Arc` keeps another backend from getting the same one.
    by_backend: RefCell<HashMap<*const Backend, IdleConnections>>,
}

/// The idle connections of one backend.
struct IdleConnections {
    backend: Arc<Backend>,
    /// In the order in which they came.
    connections: VecDeque<IdleConnection>,
}

struct IdleConnection {
    transport: Transport,
    /// How it was made.
    tls: Option<TlsTo>,
    /// By the settings of its own listener.
    expires: Instant,
    _permit: Permit,
}

impl IdleConnections {
    fn publish_count(&self, worker: usize) {
        self.backend.counters(worker).idle.store(self.connections.len(), Ordering::Relaxed);
    }
}

impl IdlePool {
    /// `limit` is for all workers together.
    pub(super) fn new(worker: usize, limit: Arc<ConnectionLimit>) -> Self {
        Self { worker, limit, by_backend: RefCell::default() }
    }

    /// Takes the connection that was used last: the older ones are likelier to be closed by the backend at any moment,
    /// and are the ones to expire. One that was made with other settings of `tls`, before a reload, is closed.
    pub(super) fn take(&self, backend: &Arc<Backend>, tls: Option<&TlsTo>) -> Option<Transport> {
        let mut by_backend = self.by_backend.borrow_mut();
        let idle = by_backend.get_mut(&Arc::as_ptr(backend))?;
        // One that the backend has ended, or sent something on unasked, is closed here instead.
        let usable = loop {
            match idle.connections.pop_back() {
                Some(idle) if idle.tls.as_ref() == tls && idle.transport.is_idle() => break Some(idle.transport),
                Some(_) => {}
                None => break None,
            }
        };
        idle.publish_count(self.worker);
        usable
    }

    /// Adds a connection, in place of the oldest if there are as many as allowed. It is closed instead if its backend
    /// is to get no further requests.
    pub(super) fn put(
        &self,
        backend: &Arc<Backend>,
        (transport, tls): (Transport, Option<TlsTo>),
        settings: BackendKeepAlive,
        now: Instant,
    ) {
        if settings.idle_connections == 0 || !backend.accepts_idle() {
            return;
        }
        let mut by_backend = self.by_backend.borrow_mut();
        let idle = by_backend
            .entry(Arc::as_ptr(backend))
            .or_insert_with(|| IdleConnections { backend: backend.clone(), connections: VecDeque::new() });
        // After a reload that allows fewer, more than one has to go.
        while idle.connections.len() >= settings.idle_connections {
            idle.connections.pop_front();
        }
        // Where all workers have as many as there are files for, the backend's oldest one here gives way, else this
        // one.
        let permit = self.limit.try_acquire().or_else(|| {
            idle.connections.pop_front();
            self.limit.try_acquire()
        });
        let Some(permit) = permit else { return idle.publish_count(self.worker) };
        let expires = now + settings.idle_timeout;
        idle.connections.push_back(IdleConnection { transport, tls, expires, _permit: permit });
        idle.publish_count(self.worker);
    }

    /// Closes those of these backends.
    pub(super) fn close(&self, backends: &HashSet<BackendId>) {
        self.by_backend.borrow_mut().retain(|_, idle| {
            let stays = !backends.contains(&idle.backend.id());
            if !stays {
                idle.connections.clear();
                idle.publish_count(self.worker);
            }
            stays
        });
    }

    /// Closes those that were idle for too long, that the backend has ended, or whose backend gets no further requests.
    pub(super) fn expire(&self, now: Instant) {
        self.by_backend.borrow_mut().retain(|_, idle| {
            let accepts_idle = idle.backend.accepts_idle();
            idle.connections.retain(|idle| accepts_idle && now < idle.expires && idle.transport.is_idle());
            idle.publish_count(self.worker);
            // Without connections the entry goes too, and with it the last reference to a removed backend.
            !idle.connections.is_empty()
        });
    }

    /// Closes all: files have run short, and clients need them.
    pub(super) fn give_way(&self) {
        self.by_backend.borrow_mut().retain(|_, idle| {
            idle.connections.clear();
            idle.publish_count(self.worker);
            false
        });
    }
}
