//! What a client sends before a backend can be chosen: a PROXY header with its address, a ClientHello with a server
//! name; and, where the listener ends TLS, the handshake.
//!
//! The first two are parsed in the kernel's buffer (MSG_PEEK), and only the PROXY header is taken out of it: a client
//! that sends a part of one and waits costs no memory of this process, and what comes next, relay or handshake, begins
//! with the ClientHello's first byte.

use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};

use crate::lifecycle::ConnectionId;
use crate::net::{Peer, Transport};
use crate::protocol::client_hello::{self, MAX_HELLO_BYTES};
use crate::protocol::proxy_header::{self, MAX_HEADER_BYTES, Origin};
use crate::telemetry::{Cause, Rejection};

use super::admitted::Permits;
use super::client_facts::ClientFacts;
use super::frontend::Frontend;
use super::handshake::Handshake;
use super::record::connection_span;
use super::refusal::Refusal;
use super::upstream::Upstream;
use super::worker::Worker;

/// What a client's first bytes decide.
pub(super) struct Preface<'a> {
    /// Boxed: few listeners learn of any.
    pub(super) facts: Option<Box<ClientFacts>>,
    pub(super) upstream: &'a Arc<Upstream>,
}

impl<'a> Preface<'a> {
    /// For a listener that reads nothing before it connects.
    pub(super) fn empty(frontend: &'a Frontend) -> Result<Self, Refusal> {
        Ok(Self { facts: None, upstream: default_upstream(frontend)? })
    }

    /// Reads what the listener asks for. A PROXY header replaces `peer` by the client that it names, and adds that
    /// client's permit to `permits`. Safe to cancel.
    pub(super) async fn read(
        worker: &Worker,
        frontend: &'a Frontend,
        id: ConnectionId,
        client: &Transport,
        peer: &mut Peer,
        permits: &mut Permits,
    ) -> Result<Self, Refusal> {
        let peeker = Peeker { worker, frontend, id, client, peer: *peer };
        let mut facts = ClientFacts::default();
        if frontend.requires_proxy_header {
            facts.server = peeker.proxy_header(peer, permits).await?;
        }
        let mut routed = None;
        if !frontend.routes.is_empty() {
            let hello = peeker.peek(MAX_HELLO_BYTES, Rejection::ClientHello, client_hello::parse).await?;
            routed = hello.server_name.and_then(|name| frontend.routes.find(&name));
        }
        let upstream = match routed {
            Some(upstream) => upstream,
            None => default_upstream(frontend)?,
        };
        if let Some(server) = &frontend.tls {
            facts.tls = Some(Handshake { worker, frontend, id, peer: *peer, client }.run(server).await?);
        }
        let has_some = facts.server.is_some() || facts.tls.is_some();
        Ok(Self { facts: has_some.then(|| Box::new(facts)), upstream })
    }
}

fn default_upstream(frontend: &Frontend) -> Result<&Arc<Upstream>, Refusal> {
    frontend.upstream.as_ref().ok_or(Refusal::Rejected(Rejection::NoRoute))
}

/// Parses what a client sends first, without taking it out of the socket.
struct Peeker<'a> {
    worker: &'a Worker,
    frontend: &'a Frontend,
    id: ConnectionId,
    client: &'a Transport,
    peer: Peer,
}

impl Peeker<'_> {
    /// Takes the PROXY header, and judges the client that it names. Returns the address that the client connected to.
    async fn proxy_header(&self, peer: &mut Peer, permits: &mut Permits) -> Result<Option<SocketAddr>, Refusal> {
        let rules = &self.frontend.access_rules;
        if !rules.trusts_header_of(*peer) {
            return Err(Rejection::UntrustedProxy.into());
        }
        let (origin, length) = self.peek(MAX_HEADER_BYTES, Rejection::ProxyHeader, proxy_header::parse).await?;
        self.client.discard(length).map_err(|_| Refusal::Closed(Cause::ClientReset))?;
        let mut server = None;
        if let Origin::Tcp { client, server: address } = origin {
            *peer = Peer::Tcp(client);
            server = Some(address);
        }
        // A header without an address (LOCAL, UNIX) leaves only the proxy's to judge by.
        rules.check(*peer)?;
        permits.client = rules.try_acquire(*peer)?;
        if origin == Origin::Unix {
            *peer = Peer::Unix;
        }
        Ok(server)
    }

    /// Peeks until `parse` has a verdict, on `most` bytes at most. A client whose bytes don't parse, or don't come in
    /// time, is refused for `reason`.
    async fn peek<T, E: Debug>(
        &self,
        most: usize,
        reason: Rejection,
        parse: impl Fn(&[u8]) -> Result<Option<T>, E>,
    ) -> Result<T, Refusal> {
        // Peeked bytes stay in the socket, which therefore stays readable: the next peek waits for more than `known`.
        let mut known = 0;
        let verdict = poll_fn(|cx| {
            loop {
                let scratch = &self.worker.resources.scratch;
                let parse_with_length = |bytes: &[u8]| (bytes.len(), parse(bytes));
                // One byte more than allowed: after `most` undecided ones the wait still ends, with a refusal.
                match ready!(scratch.poll_peek(cx, self.client, known, most + 1, parse_with_length)) {
                    Ok((_, Ok(Some(parsed)))) => return Poll::Ready(Ok(parsed)),
                    Ok((seen, Ok(None))) if seen <= most => known = seen,
                    Ok((_, parsed)) => {
                        // Malformed; or `None`: still undecided, and too long.
                        let error = parsed.err();
                        connection_span(self.id, self.peer)
                            .in_scope(|| tracing::debug!(reason = reason.as_str(), ?error, "client refused"));
                        return Poll::Ready(Err(Refusal::Rejected(reason)));
                    }
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Poll::Ready(Err(Refusal::Closed(Cause::ClientClosed)));
                    }
                    Err(_) => return Poll::Ready(Err(Refusal::Closed(Cause::ClientReset))),
                }
            }
        });
        tokio::time::timeout(self.frontend.preface_timeout, verdict).await.unwrap_or(Err(Refusal::Rejected(reason)))
    }
}
