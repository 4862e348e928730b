//! What a client sends before a backend can be chosen: a PROXY header with its address; where the listener ends TLS,
//! the handshake; and what the routes go by, which is a ClientHello or other first bytes, or that none come.
//!
//! What is looked at stays where it is (MSG_PEEK, or what TLS has decrypted), and only the PROXY header is taken: a
//! client that sends a part and waits costs no memory of this process, and the relay begins with its first byte.

use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::{Instant, timeout, timeout_at};

use crate::backends::{Backend, HostPort, NoHost};
use crate::config::ToServerName;
use crate::net::{Peer, Transport};
use crate::protocol::proxy_header::{self, MAX_HEADER_BYTES, Origin};
use crate::telemetry::{Cause, Rejection};

use super::account::Account;
use super::admitted::Permits;
use super::client_facts::ClientFacts;
use super::connections::Connection;
use super::frontend::Frontend;
use super::handshake::Handshake;
use super::record::connection_span;
use super::refusal::Refusal;
use super::routes::{Choice, NamedHost, Way};
use super::upstream::Upstream;
use super::worker::Worker;

/// The pool for clients of a listener of which nothing has to be read before that.
pub(super) fn default_upstream(frontend: &Frontend) -> Result<&Arc<Upstream>, Refusal> {
    frontend.upstream.as_ref().ok_or(Refusal::Rejected(Rejection::NoRoute))
}

/// Reads what the listener asks for, and returns the pool that serves the client. A PROXY header says who the
/// connection's client is, and adds that client's permit; what else is learned of it is in the connection's account, of
/// a refused client too. Safe to cancel.
pub(super) async fn read<'a>(
    worker: &Worker,
    connection: &'a Connection,
    client: &Transport,
) -> Result<&'a Arc<Upstream>, Refusal> {
    let account = connection.account();
    let peeker = Peeker { worker, frontend: &account.frontend, account, client };
    let mut facts = ClientFacts::default();
    let upstream = peeker.read(connection, &mut facts).await;
    if !facts.is_empty() {
        account.learned(facts);
    }
    upstream
}

/// Parses what a client sends first, without taking it out of the socket.
struct Peeker<'a, 'w> {
    worker: &'w Worker,
    frontend: &'a Frontend,
    account: &'a Account,
    client: &'w Transport,
}

impl<'a> Peeker<'a, '_> {
    async fn read(&self, connection: &Connection, facts: &mut ClientFacts) -> Result<&'a Arc<Upstream>, Refusal> {
        if self.frontend.awaits_proxy_header(self.account.peer()) {
            facts.server = self.proxy_header(&connection.admitted.permits).await?;
        }
        if let Some(server) = &self.frontend.tls {
            facts.tls = Some(Handshake { worker: self.worker, connection, client: self.client }.run(server).await?);
        }
        let Some(Way { upstream, host }) = self.route(facts).await? else { return default_upstream(self.frontend) };
        if let Some(host) = host {
            facts.named = self.named_backends(upstream, host).await?;
        }
        Ok(upstream)
    }

    /// Takes the PROXY header, and judges the client that it names. Returns the address that the client connected to.
    async fn proxy_header(&self, permits: &Permits) -> Result<Option<SocketAddr>, Refusal> {
        let (account, rules) = (self.account, &self.frontend.access_rules);
        if !rules.trusts_header_of(account.peer()) {
            return Err(Rejection::UntrustedProxy.into());
        }
        let (origin, length) = self.peek(MAX_HEADER_BYTES, Rejection::ProxyHeader, proxy_header::parse).await?;
        self.client.discard(length).map_err(|_| Refusal::Closed(Cause::ClientReset))?;
        let mut server = None;
        if let Origin::Tcp { client, server: address } = origin {
            account.set_peer(Peer::Tcp(client));
            server = Some(address);
        }
        // A header without an address (LOCAL, UNIX) leaves only the proxy's to judge by.
        rules.check(account.peer())?;
        if let Some(permit) = rules.try_acquire(account.peer())? {
            let _ = permits.client.set(permit);
        }
        if origin == Origin::Unix {
            account.set_peer(Peer::Unix);
        }
        Ok(server)
    }

    /// Where the route leads to that fits the client; `None`: none fits.
    ///
    /// A client that doesn't say enough within the listener's time is taken for a silent one, or else refused.
    async fn route(&self, facts: &ClientFacts) -> Result<Option<Way<'a>>, Refusal> {
        let (routes, session) = (&self.frontend.routes, facts.tls.as_ref());
        if let Some(way) = session.and_then(|session| routes.of_session(session)) {
            return Ok(Some(way));
        }
        let judge = routes.judge(session.is_some(), &facts.passing_name);
        if !judge.is_needed() {
            return Ok(None);
        }
        let end = Instant::now() + self.frontend.preface_timeout;
        let (mut known, mut best) = (0, None);
        let late = loop {
            let until = routes.silence().map_or(end, |silence| end.min(Instant::now() + silence));
            match timeout_at(until, self.peek_beyond(known, judge.most_bytes(), |bytes| judge.judge(bytes))).await {
                Ok(Ok((_, Ok(Choice::Route(way))))) => return Ok(Some(way)),
                Ok(Ok((_, Ok(Choice::Rest)))) => return Ok(None),
                Ok(Ok((seen, Ok(Choice::Open { so_far })))) => (known, best) = (seen, so_far),
                Ok(Ok((_, Err(fault)))) => return Err(self.refuse(Rejection::ClientHello, Some(&fault))),
                Ok(Err(Cause::ClientClosed)) => break Refusal::Closed(Cause::ClientClosed),
                Ok(Err(cause)) => return Err(Refusal::Closed(cause)),
                Err(_) if judge.awaits_hello_alone() => break Rejection::ClientHello.into(),
                Err(_) => break Rejection::FirstBytes.into(),
            }
        };
        best.or(routes.of_silence()).map_or(Err(late), |upstream| Ok(Some(upstream.into())))
    }

    /// What the host's name stands for, within the listener's time for what comes first.
    async fn named_backends(&self, upstream: &Upstream, host: NamedHost) -> Result<Vec<Arc<Backend>>, Refusal> {
        let NamedHost { name, to: ToServerName { port, allows_local } } = host;
        let found = upstream.pool().named_backends(HostPort { host: name, port }, allows_local);
        let found = tokio::select! {
            found = timeout(self.frontend.preface_timeout, found) => found,
            () = self.client.reset_by_peer() => return Err(Refusal::Closed(Cause::ClientReset)),
        };
        let reason = match found {
            Ok(Ok(backends)) => return Ok(backends),
            Ok(Err(NoHost::Local)) => Rejection::ServerLocal,
            Ok(Err(NoHost::Busy)) => Rejection::ServerLookups,
            Ok(Err(NoHost::Unresolved)) | Err(_) => Rejection::ServerUnresolved,
        };
        Err(reason.into())
    }

    /// Peeks until `parse` has a verdict, on `most` bytes at most. A client whose bytes don't parse, or don't come in
    /// time, is refused for `reason`.
    async fn peek<T, E: Debug>(
        &self,
        most: usize,
        reason: Rejection,
        parse: impl Fn(&[u8]) -> Result<Option<T>, E>,
    ) -> Result<T, Refusal> {
        let verdict = async {
            let mut known = 0;
            loop {
                // One byte more than allowed: after `most` undecided ones the wait still ends, with a refusal.
                match self.peek_beyond(known, most + 1, &parse).await.map_err(Refusal::Closed)? {
                    (_, Ok(Some(parsed))) => return Ok(parsed),
                    (seen, Ok(None)) if seen <= most => known = seen,
                    // Malformed; or `None`: still undecided, and too long.
                    (_, parsed) => return Err(self.refuse(reason, parsed.err().as_ref())),
                }
            }
        };
        timeout(self.frontend.preface_timeout, verdict).await.unwrap_or(Err(Refusal::Rejected(reason)))
    }

    /// Looks at what the client has sent, `most` bytes at most, once that is more than the `known` ones, and says how
    /// many there are: they stay where they are, and the next look waits for more. Safe to cancel.
    async fn peek_beyond<T>(&self, known: usize, most: usize, look: impl Fn(&[u8]) -> T) -> Result<(usize, T), Cause> {
        let scratch = &self.worker.resources.scratch;
        let look = |bytes: &[u8]| (bytes.len(), look(bytes));
        poll_fn(|cx| scratch.poll_peek(cx, self.client, known, most, look)).await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Cause::ClientClosed,
            _ => Cause::ClientReset,
        })
    }

    fn refuse(&self, reason: Rejection, error: Option<&impl Debug>) -> Refusal {
        connection_span(self.account.id, self.account.peer())
            .in_scope(|| tracing::debug!(reason = reason.as_str(), ?error, "client refused"));
        reason.into()
    }
}
