//! What is asked of a connection before a backend is: who the client is, whether it may come in, which pool it is for.
//!
//! What is read of the client here is looked at in the socket's own buffer, and only a PROXY header is taken out of it: an idle
//! attacker costs no memory of ours, and what follows is relayed as if nothing had been read.

use std::fmt::Debug;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use crate::config::{self, Networks, ProxyProtocol};
use crate::lifecycle::{ClientLimits, ClientPermit, ClientRefusal, Clients};
use crate::net::{Peer, Transport};
use crate::protocol::client_hello::{self, MAX_HELLO_BYTES, ServerNamePattern};
use crate::protocol::proxy_header::{self, MAX_HEADER_BYTES, Origin};
use crate::telemetry::{Cause, Rejection};

use super::connect::Refusal;
use super::frontend::{Frontend, Worker};
use super::upstream::Upstream;
use super::workers::Permits;

/// A listener's rules.
pub(super) struct AccessRules {
    requires_header: bool,
    trusted: Networks,
    allow: Networks,
    deny: Networks,
    limits: ClientLimits,
    clients: Arc<Clients>,
    /// The best match first.
    routes: Vec<(ServerNamePattern, Arc<Upstream>)>,
    timeout: Duration,
}

/// A connection that may go on.
pub(super) struct Preface<'a> {
    /// Where the client connected to, where a PROXY header says it.
    pub(super) server: Option<Box<SocketAddr>>,
    /// What serves it.
    pub(super) upstream: &'a Arc<Upstream>,
}

impl AccessRules {
    pub(super) fn new(
        listener: &config::ListenerConfig,
        upstream_of: &impl Fn(&str) -> Arc<Upstream>,
        before: Option<&Self>,
    ) -> Self {
        let route = |route: &config::Route| (route.sni.clone(), upstream_of(&route.pool));
        let mut routes: Vec<(ServerNamePattern, _)> = listener.mode.routes().iter().map(route).collect();
        routes.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.rank()));
        Self {
            requires_header: listener.proxy_protocol == ProxyProtocol::Required,
            trusted: listener.trusted_proxies.clone(),
            allow: listener.allow.clone(),
            deny: listener.deny.clone(),
            limits: listener.per_client,
            clients: before.map_or_else(|| Clients::new(Instant::now()), |before| before.clients.clone()),
            routes,
            timeout: listener.client_header_timeout,
        }
    }

    /// Whether the client is known by its address: nothing it sends is read before a backend is asked.
    pub(super) fn knows_client_by_address(&self) -> bool {
        !self.requires_header
    }

    /// Whether anything has to be read before a backend can be asked.
    pub(super) fn reads_nothing(&self) -> bool {
        !self.requires_header && self.routes.is_empty()
    }

    /// Judges a client by its address. A unix socket's client has none: file permissions are its rules.
    pub(super) fn allows(&self, peer: Peer) -> Result<(), Rejection> {
        let is_allowed = |client| !self.deny.contains(client) && (self.allow.is_empty() || self.allow.contains(client));
        if address_of(peer).is_none_or(is_allowed) { Ok(()) } else { Err(Rejection::Denied) }
    }

    /// Counts the connection towards what its client may take.
    pub(super) fn count(&self, peer: Peer) -> Result<Option<Box<ClientPermit>>, Rejection> {
        let Some(client) = address_of(peer) else { return Ok(None) };
        match self.clients.enter(client, self.limits, Instant::now()) {
            Ok(permit) => Ok(permit.map(Box::new)),
            Err(ClientRefusal::TooMany) => Err(Rejection::ClientMaxConnections),
            Err(ClientRefusal::TooFast) => Err(Rejection::ClientRate),
        }
    }

    fn trusts(&self, peer: Peer) -> bool {
        address_of(peer).is_none_or(|address| self.trusted.contains(address))
    }

    fn route(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.routes.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, upstream)| upstream)
    }
}

impl<'a> Preface<'a> {
    /// A connection of which nothing has to be read; its client was admitted.
    pub(super) fn without_reading(frontend: &'a Frontend) -> Result<Self, Refusal> {
        let upstream = frontend.upstream.as_ref().ok_or(Refusal::Rejected(Rejection::NoRoute))?;
        Ok(Self { server: None, upstream })
    }

    /// Reads what has to be read; `peer` becomes whom a PROXY header names, and `permits` has its part of what it may take. Safe to
    /// cancel.
    pub(super) async fn read(
        worker: &Worker,
        frontend: &'a Frontend,
        client: &Transport,
        peer: &mut Peer,
        permits: &mut Permits,
    ) -> Result<Self, Refusal> {
        let access_rules = &frontend.access_rules;
        let mut server = None;
        if access_rules.requires_header {
            if !access_rules.trusts(*peer) {
                return Err(Refusal::Rejected(Rejection::UntrustedProxy));
            }
            let look = Peeker { worker, client, most: MAX_HEADER_BYTES, refusal: Rejection::ProxyHeader };
            let (origin, length) = look.until(access_rules.timeout, proxy_header::parse).await?;
            client.discard(length).map_err(|_| Refusal::Closed(Cause::ClientReset))?;
            if let Origin::Tcp { client, server: address } = origin {
                *peer = Peer::Tcp(client);
                server = Some(Box::new(address));
            }
            // A client without an address, by the header's word, is judged by the only one there is: the proxy's.
            access_rules.allows(*peer).map_err(Refusal::Rejected)?;
            permits.client = access_rules.count(*peer).map_err(Refusal::Rejected)?;
            if origin == Origin::Unix {
                *peer = Peer::Unix;
            }
        }
        let upstream = match access_rules.routes.is_empty() {
            true => None,
            false => {
                let look = Peeker { worker, client, most: MAX_HELLO_BYTES, refusal: Rejection::ClientHello };
                let hello = look.until(access_rules.timeout, client_hello::parse).await?;
                hello.server_name.and_then(|name| access_rules.route(&name))
            }
        };
        let upstream = upstream.or(frontend.upstream.as_ref()).ok_or(Refusal::Rejected(Rejection::NoRoute))?;
        Ok(Self { server, upstream })
    }
}

/// A look at what a client sends first.
struct Peeker<'a> {
    worker: &'a Worker,
    client: &'a Transport,
    /// More than this is not looked at.
    most: usize,
    /// What it is refused for.
    refusal: Rejection,
}

impl Peeker<'_> {
    /// Looks until `parse` has a verdict.
    async fn until<T, E: Debug>(
        &self,
        limit: Duration,
        parse: impl Fn(&[u8]) -> Result<Option<T>, E>,
    ) -> Result<T, Refusal> {
        let refused = Refusal::Rejected(self.refusal);
        let mut known = 0;
        let verdict = poll_fn(|cx| {
            loop {
                let look = |bytes: &[u8]| (bytes.len(), parse(bytes));
                let scratch = &self.worker.resources.scratch;
                // One byte more than may be: so there is always something new to wait for.
                match ready!(scratch.poll_peek(cx, self.client, known, self.most + 1, look)) {
                    Ok((_, Ok(Some(parsed)))) => return Poll::Ready(Ok(parsed)),
                    Ok((seen, Ok(None))) if seen <= self.most => known = seen,
                    Ok((_, parsed)) => {
                        let error = parsed.err();
                        tracing::debug!(reason = self.refusal.as_str(), ?error, "a client is refused");
                        return Poll::Ready(Err(refused));
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return Poll::Ready(Err(Refusal::Closed(Cause::ClientClosed)));
                    }
                    Err(_) => return Poll::Ready(Err(Refusal::Closed(Cause::ClientReset))),
                }
            }
        });
        tokio::time::timeout(limit, verdict).await.unwrap_or(Err(refused))
    }
}

fn address_of(peer: Peer) -> Option<IpAddr> {
    match peer {
        Peer::Tcp(address) => Some(address.ip()),
        Peer::Unix => None,
    }
}
