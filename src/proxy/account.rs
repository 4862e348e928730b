//! What is known of a connection: its task fills it in, its record and whoever lists the worker's connections read it.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use crate::backends::Backend;
use crate::lifecycle::{ConnectionId, Traits};
use crate::net::Peer;
use crate::relay::Tally;
use crate::telemetry::Cause;

use super::client_facts::ClientFacts;
use super::frontend::Frontend;
use super::upstream::Upstream;
use super::worker_load::Load;

pub(super) struct Account {
    pub(super) id: ConnectionId,
    pub(super) accepted_at: Instant,
    pub(super) frontend: Arc<Frontend>,
    /// Of the worker that serves it.
    pub(super) load: Load,
    peer: Cell<Peer>,
    /// Boxed: few listeners learn of any.
    facts: OnceCell<Box<ClientFacts>>,
    upstream: OnceCell<Arc<Upstream>>,
    /// The backend that it uses, from the pick on.
    backend: RefCell<Option<Arc<Backend>>>,
    pub(super) tally: Tally,
    requests: Cell<u32>,
    is_ended_by_operator: Cell<bool>,
}

impl Account {
    pub(super) fn new(id: ConnectionId, accepted_at: Instant, peer: Peer, frontend: Arc<Frontend>, load: Load) -> Self {
        Self {
            id,
            accepted_at,
            frontend,
            load,
            peer: Cell::new(peer),
            facts: OnceCell::new(),
            upstream: OnceCell::new(),
            backend: RefCell::default(),
            tally: Tally::default(),
            requests: Cell::new(0),
            is_ended_by_operator: Cell::new(false),
        }
    }

    /// Who the client is: the peer, or whom its PROXY header names.
    pub(super) fn peer(&self) -> Peer {
        self.peer.get()
    }

    /// A PROXY header names the client.
    pub(super) fn set_peer(&self, client: Peer) {
        self.peer.set(client);
    }

    /// What its preface said of the client; `None`: nothing.
    pub(super) fn facts(&self) -> Option<&ClientFacts> {
        self.facts.get().map(|facts| &**facts)
    }

    /// The pool that serves it, once that is known.
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        self.upstream.get().map(|upstream| &**upstream)
    }

    /// The preface has told more of the client than its address.
    pub(super) fn learned(&self, facts: ClientFacts) {
        let _ = self.facts.set(Box::new(facts));
    }

    /// The preface is over.
    pub(super) fn chosen(&self, upstream: &Arc<Upstream>) -> &Upstream {
        self.upstream.get_or_init(|| upstream.clone())
    }

    /// `None`: it uses none for now.
    pub(super) fn set_backend(&self, backend: Option<&Arc<Backend>>) {
        *self.backend.borrow_mut() = backend.cloned();
    }

    pub(super) fn count_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// Its task is to be dropped; `false`: it was told so already.
    pub(super) fn end_by_operator(&self) -> bool {
        !self.is_ended_by_operator.replace(true)
    }

    /// The cause where its task was dropped before it had ended.
    pub(super) fn cause_of_cut(&self) -> Cause {
        if self.is_ended_by_operator.get() { Cause::Operator } else { self.load.cause_of_cut() }
    }

    /// Calls `look` with what a selection goes by.
    pub(super) fn with_traits<T>(&self, look: impl FnOnce(Traits<'_>) -> T) -> T {
        look(Traits {
            id: self.id,
            client: self.peer().ip(),
            listener: self.frontend.name(),
            pool: self.upstream().map(|upstream| upstream.pool().name()),
            backend: self.backend.borrow().as_ref().map(|backend| backend.label()),
        })
    }
}
