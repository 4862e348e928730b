//! Idle connections of one worker to backends, kept for the next request.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::backends::Backend;
use crate::config::BackendKeepAlive;
use crate::net::Stream;

/// By the backend's place in memory, which its `Arc` in the shelf keeps from being used again.
pub(in crate::proxy) struct Kept {
    worker: usize,
    shelves: RefCell<HashMap<*const Backend, Shelf>>,
}

/// Those of one backend, the oldest first.
struct Shelf {
    backend: Arc<Backend>,
    idle_timeout: Duration,
    streams: VecDeque<(Stream, Instant)>,
}

impl Shelf {
    fn tell(&self, worker: usize) {
        self.backend.counters(worker).kept.store(self.streams.len(), Ordering::Relaxed);
    }
}

impl Kept {
    pub(in crate::proxy) fn of(worker: usize) -> Self {
        Self { worker, shelves: RefCell::default() }
    }

    /// Takes the connection that was used last; one that the backend has ended, or sent something on, is never given.
    pub(in crate::proxy) fn take(&self, backend: &Arc<Backend>) -> Option<Stream> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(&Arc::as_ptr(backend))?;
        let mut youngest = std::iter::from_fn(|| shelf.streams.pop_back());
        let quiet = youngest.find(|(stream, _)| stream.is_quiet());
        shelf.tell(self.worker);
        quiet.map(|(stream, _)| stream)
    }

    /// Keeps a connection in place of the oldest where there are enough, unless its backend gets no further requests.
    pub(super) fn put(&self, backend: &Arc<Backend>, stream: Stream, settings: BackendKeepAlive, now: Instant) {
        if settings.idle_connections == 0 || !backend.is_staying() {
            return;
        }
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(Arc::as_ptr(backend)).or_insert_with(|| Shelf {
            backend: backend.clone(),
            idle_timeout: settings.idle_timeout,
            streams: VecDeque::new(),
        });
        // More than one where a reload allows fewer.
        while shelf.streams.len() >= settings.idle_connections {
            shelf.streams.pop_front();
        }
        shelf.idle_timeout = settings.idle_timeout;
        shelf.streams.push_back((stream, now));
        shelf.tell(self.worker);
    }

    /// Closes those that were idle for too long, that the backend has ended, or whose backend gets no further requests.
    pub(in crate::proxy) fn sweep(&self, now: Instant) {
        self.shelves.borrow_mut().retain(|_, shelf| {
            let (limit, is_staying) = (shelf.idle_timeout, shelf.backend.is_staying());
            let is_young = |since| now.saturating_duration_since(since) < limit;
            shelf.streams.retain(|(stream, since)| is_staying && is_young(*since) && stream.is_quiet());
            shelf.tell(self.worker);
            !shelf.streams.is_empty()
        });
    }
}
