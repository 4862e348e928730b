//! One listener as it is configured now: what all its connections, on all workers, share.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::access_log::AccessLog;
use crate::config::{self, ProxyProtocol};
use crate::lifecycle::{ConnectionLimit, Permit};
use crate::net::Peer;
use crate::relay::Limits;
use crate::telemetry::{ListenerCounters, ListenerStats, Rejection};
use crate::tls;

use super::access_rules::AccessRules;
use super::http_settings::HttpSettings;
use super::routes::Routes;
use super::upstream::Upstream;

/// What all listeners need of the process.
#[derive(Clone)]
pub struct ListenerDeps {
    /// The process's limit of connections.
    pub global_limit: Arc<ConnectionLimit>,
    /// `None`: it is off.
    pub access_log: Option<Arc<AccessLog>>,
    pub workers: usize,
}

/// A listener's state. A reload replaces it; a connection keeps the one that it began with.
pub struct Frontend {
    pub(super) stats: Arc<ListenerStats>,
    /// Serves clients without a route of their own; `None`: such a connection is refused.
    pub(super) upstream: Option<Arc<Upstream>>,
    pub(super) access_rules: AccessRules,
    proxy_protocol: ProxyProtocol,
    /// `None`: bytes are taken as they come.
    pub(super) tls: Option<tls::Server>,
    pub(super) routes: Routes,
    /// A PROXY header, a TLS handshake and what the routes go by must each be there in this time.
    pub(super) preface_timeout: Duration,
    /// Both: [`Duration::MAX`] for no limit.
    idle: Duration,
    half_closed: Duration,
    /// `None`: the listener is in tcp mode.
    pub(super) http: Option<HttpSettings>,
    global_limit: Arc<ConnectionLimit>,
    own_limit: Arc<ConnectionLimit>,
    pub(super) access_log: Option<Arc<AccessLog>>,
    is_replaced: AtomicBool,
}

impl Frontend {
    /// `before` is the frontend that a reload replaces: its counts and limits continue.
    pub fn new(
        listener: &config::ListenerConfig,
        upstream_of: impl Fn(&str) -> Arc<Upstream>,
        deps: &ListenerDeps,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let max = listener.max_connections.map_or(usize::MAX, NonZeroUsize::get);
        let (stats, own_limit) = match before {
            Some(before) => (before.stats.clone(), before.own_limit.clone()),
            None => {
                let stats = ListenerStats::new(listener.name.clone(), deps.workers);
                (Arc::new(stats), ConnectionLimit::new(max))
            }
        };
        own_limit.set_max(max);
        Arc::new(Self {
            stats,
            access_rules: AccessRules::new(listener, before.map(|before| &before.access_rules)),
            proxy_protocol: listener.proxy_protocol,
            tls: listener.tls.clone(),
            routes: Routes::new(listener.mode.routes(), &upstream_of),
            preface_timeout: listener.client_header_timeout,
            upstream: listener.pool.as_deref().map(upstream_of),
            idle: listener.idle_timeout.unwrap_or(Duration::MAX),
            half_closed: listener.half_closed_timeout.unwrap_or(Duration::MAX),
            http: HttpSettings::new(listener),
            global_limit: deps.global_limit.clone(),
            own_limit,
            access_log: if listener.access_log { deps.access_log.clone() } else { None },
            is_replaced: AtomicBool::new(false),
        })
    }

    pub fn stats(&self) -> &Arc<ListenerStats> {
        &self.stats
    }

    /// A reload has replaced it: HTTP clients are asked to close, and get the new one with their next connection.
    pub fn mark_replaced(&self) {
        self.is_replaced.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    pub(super) fn name(&self) -> &str {
        &self.stats.name
    }

    /// What one worker counts of it.
    pub(super) fn counters(&self, worker: usize) -> &ListenerCounters {
        self.stats.counters.worker(worker)
    }

    /// Whether something must be known of a client, beside its address, before a backend can be chosen.
    pub(super) fn needs_preface(&self, peer: Peer) -> bool {
        self.awaits_proxy_header(peer) || self.tls.is_some() || !self.routes.is_empty()
    }

    /// Whether what this peer sends must begin with a PROXY header.
    pub(super) fn awaits_proxy_header(&self, peer: Peer) -> bool {
        match self.proxy_protocol {
            ProxyProtocol::Off => false,
            ProxyProtocol::Required => true,
            ProxyProtocol::FromTrusted => self.access_rules.trusts_header_of(peer),
        }
    }

    /// One more connection within the limits of the process and of the listener.
    pub(super) fn try_acquire(&self) -> Result<(Permit, Permit), Rejection> {
        let process = self.global_limit.try_acquire().ok_or(Rejection::MaxConnections)?;
        let listener = self.own_limit.try_acquire().ok_or(Rejection::ListenerMaxConnections)?;
        Ok((process, listener))
    }

    /// The idle limits of its connections to `upstream`.
    pub(super) fn limits(&self, upstream: &Upstream) -> Limits {
        let settings = upstream.pool().settings();
        let first_byte = settings.first_byte_timeout.filter(|_| self.http.is_none());
        Limits { idle: self.idle, half_closed: self.half_closed, first_byte, keepalive: settings.tcp.keepalive }
    }
}
