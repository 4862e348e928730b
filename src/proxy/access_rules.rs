//! Who may connect to a listener: `allow`, `deny`, each client's limits, and which proxies are trusted.
//!
//! Judges addresses, and reads nothing: the PROXY header that may name the client is read by `preface`.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Networks};
use crate::lifecycle::{ClientLimits, ClientPermit, ClientRefusal, Clients};
use crate::net::Peer;
use crate::telemetry::Rejection;

/// A listener's rules about addresses.
pub(super) struct AccessRules {
    trusted: Networks,
    allow: Networks,
    deny: Networks,
    limits: ClientLimits,
    clients: Arc<Clients>,
}

impl AccessRules {
    /// `before` are the rules that a reload replaces: connections that clients have open or made recently still count.
    pub(super) fn new(listener: &config::ListenerConfig, before: Option<&Self>) -> Self {
        Self {
            trusted: listener.trusted_proxies.clone(),
            allow: listener.allow.clone(),
            deny: listener.deny.clone(),
            limits: listener.per_client,
            clients: before.map_or_else(|| Clients::new(Instant::now()), |before| before.clients.clone()),
        }
    }

    /// Judges a client by its address. A unix socket's client has none: there, file permissions decide.
    pub(super) fn check(&self, peer: Peer) -> Result<(), Rejection> {
        let Some(client) = peer.ip() else { return Ok(()) };
        if !self.deny.contains(client) && (self.allow.is_empty() || self.allow.contains(client)) {
            Ok(())
        } else {
            Err(Rejection::Denied)
        }
    }

    /// One more connection within its client's limits.
    pub(super) fn try_acquire(&self, peer: Peer) -> Result<Option<Box<ClientPermit>>, Rejection> {
        let Some(client) = peer.ip() else { return Ok(None) };
        match self.clients.try_acquire(client, self.limits, Instant::now()) {
            Ok(permit) => Ok(permit.map(Box::new)),
            Err(ClientRefusal::TooMany) => Err(Rejection::ClientMaxConnections),
            Err(ClientRefusal::TooFast) => Err(Rejection::ClientRate),
        }
    }

    /// Whether a PROXY header is accepted from this peer. For a unix socket's peer, the file's permissions decide.
    pub(super) fn trusts_header_of(&self, peer: Peer) -> bool {
        peer.ip().is_none_or(|address| self.trusted.contains(address))
    }
}
