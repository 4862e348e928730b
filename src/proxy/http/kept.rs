//! Idle connections of one worker to backends, kept for the next request.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backends::Backend;
use crate::config::BackendKeepAlive;
use crate::net::Stream;

/// By the backend's place in memory, which its `Arc` in the shelf keeps from being used again.
#[derive(Default)]
pub(in crate::proxy) struct Kept {
    shelves: RefCell<HashMap<*const Backend, Shelf>>,
}

/// Those of one backend, the oldest first.
struct Shelf {
    _backend: Arc<Backend>,
    idle_timeout: Duration,
    streams: VecDeque<(Stream, Instant)>,
}

impl Kept {
    /// Takes the connection that was used last; one that the backend has ended, or sent something on, is never given.
    pub(in crate::proxy) fn take(&self, backend: &Arc<Backend>) -> Option<Stream> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(&Arc::as_ptr(backend))?;
        while let Some((stream, _)) = shelf.streams.pop_back() {
            if stream.is_quiet() {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection, unless there are enough.
    pub(super) fn put(&self, backend: &Arc<Backend>, stream: Stream, settings: BackendKeepAlive, now: Instant) {
        if settings.idle_connections == 0 {
            return;
        }
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(Arc::as_ptr(backend)).or_insert_with(|| Shelf {
            _backend: backend.clone(),
            idle_timeout: settings.idle_timeout,
            streams: VecDeque::new(),
        });
        if shelf.streams.len() >= settings.idle_connections {
            shelf.streams.pop_front();
        }
        shelf.idle_timeout = settings.idle_timeout;
        shelf.streams.push_back((stream, now));
    }

    /// Closes those that were idle for too long or that the backend has ended.
    pub(in crate::proxy) fn sweep(&self, now: Instant) {
        self.shelves.borrow_mut().retain(|_, shelf| {
            let limit = shelf.idle_timeout;
            shelf.streams.retain(|(stream, since)| now.saturating_duration_since(*since) < limit && stream.is_quiet());
            !shelf.streams.is_empty()
        });
    }
}
