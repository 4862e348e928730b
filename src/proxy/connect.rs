//! Finding a backend that answers: pick (waiting in the queue for room), dial or take a kept connection, and on to the
//! next one where that failed.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use crate::backends::Lease;
use crate::balancer::{NoChoice, Request};
use crate::net::{self, ConnectFailure, Peer, Stream};
use crate::protocol::proxy_header::{self, Origin};
use crate::telemetry::{Cause, Rejection};

use super::http::Kept;
use super::record::Attempts;
use super::upstream::Upstream;

/// A connection to a backend, counted on it.
pub(super) struct Connected {
    pub(super) stream: Stream,
    pub(super) lease: Lease,
    /// It has served a request before.
    pub(super) is_reused: bool,
}

/// Why a client can't be served.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// The connection ends for this cause.
    Closed(Cause),
    /// It is refused, and counted as that.
    Rejected(Rejection),
}

/// Who asks for a backend.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) client: &'a Stream,
    pub(super) peer: Peer,
    /// Where the client connected to, where that is not its socket's own address.
    pub(super) server: Option<&'a SocketAddr>,
    /// Connections that have served a request before, where they will do.
    pub(super) kept: Option<&'a Kept>,
}

/// Tries backends, each at most once and `attempts` at most. Not a byte of the client is read before one answers.
/// Safe to cancel.
///
/// # Errors
/// Why the client can't be served.
pub(super) async fn to_backend(asker: Asker<'_>, attempts: &mut Attempts) -> Result<Connected, Refusal> {
    let pool = asker.upstream.pool();
    while attempts.tried().len() < pool.settings().attempts.get() {
        let lease = match pick(asker, attempts).await {
            Ok(lease) => lease,
            Err(Some(reason)) => return Err(Refusal::Rejected(reason)),
            Err(None) => break,
        };
        let _retry = if attempts.tried().is_empty() {
            None
        } else {
            let Some(retry) = pool.retry().await else { break };
            Some(retry)
        };
        if let Some(stream) = asker.kept.and_then(|kept| kept.take(lease.backend())) {
            attempts.connected(lease.backend(), None);
            return Ok(Connected { stream, lease, is_reused: true });
        }
        match dial(asker, lease, attempts).await {
            Ok(connected) => return Ok(connected),
            Err(Failed::Backend) => {}
            Err(Failed::Client) => return Err(Refusal::Closed(Cause::ClientReset)),
        }
    }
    Err(Refusal::Closed(cause_of(attempts.failures())))
}

/// A new connection to the backend that is leased already; where that fails, to the next ones.
///
/// # Errors
/// Why the client can't be served.
pub(super) async fn afresh(asker: Asker<'_>, lease: Lease, attempts: &mut Attempts) -> Result<Connected, Refusal> {
    match dial(asker, lease, attempts).await {
        Ok(connected) => Ok(connected),
        Err(Failed::Backend) => to_backend(Asker { kept: None, ..asker }, attempts).await,
        Err(Failed::Client) => Err(Refusal::Closed(Cause::ClientReset)),
    }
}

/// Why a dial gave no connection.
enum Failed {
    /// Another backend may do better.
    Backend,
    /// The client has reset meanwhile: nobody waits for the connection. That says nothing of the backend.
    Client,
}

async fn dial(asker: Asker<'_>, lease: Lease, attempts: &mut Attempts) -> Result<Connected, Failed> {
    let upstream = asker.upstream;
    let started = Instant::now();
    let target = lease.backend().target();
    let options = upstream.dial_options();
    let dialled = tokio::select! {
        biased;
        dialled = net::dial(target, upstream.next_source(target), &options) => dialled,
        // One that has only ended its side may wait for an answer still.
        () = asker.client.failed() => return Err(Failed::Client),
    };
    match dialled {
        Ok(stream) if send_proxy_header(asker, &stream).is_err() => {
            attempts.failed(lease.backend(), ConnectFailure::Reset);
            lease.connect_failed(ConnectFailure::Reset, Instant::now());
            Err(Failed::Backend)
        }
        Ok(stream) => {
            let took = started.elapsed();
            lease.connected(took);
            upstream.histograms.connect.record(took);
            attempts.connected(lease.backend(), Some(took));
            Ok(Connected { stream, lease, is_reused: false })
        }
        Err(error) => {
            tracing::debug!(pool = upstream.pool().name(), backend = lease.backend().label(), %error);
            attempts.failed(lease.backend(), error.failure);
            lease.connect_failed(error.failure, Instant::now());
            Err(Failed::Backend)
        }
    }
}

/// Says who the client is, in a header of the PROXY protocol, where the pool wants one.
fn send_proxy_header(asker: Asker<'_>, backend: &Stream) -> io::Result<()> {
    let Some(version) = asker.upstream.pool().proxy_version() else { return Ok(()) };
    let server = asker.server.copied().or_else(|| asker.client.local_address());
    let origin = match (asker.peer, server) {
        (Peer::Tcp(client), Some(server)) => Origin::Tcp { client, server },
        // A client of a unix socket.
        _ => Origin::Unix,
    };
    let mut header = Vec::new();
    proxy_header::write(version, origin, &mut header);
    backend.send_first(&header)
}

/// One attempt that was the backend's fault makes it more than our own trouble.
fn cause_of(failures: &[ConnectFailure]) -> Cause {
    if failures.is_empty() {
        Cause::NoBackend
    } else if failures.iter().any(|failure| failure.is_backends_fault()) {
        Cause::ConnectFailed
    } else {
        Cause::Internal
    }
}

/// Chooses a backend, waiting in the pool's queue while all are full. `Err(None)`: there is none left to try.
async fn pick(asker: Asker<'_>, attempts: &Attempts) -> Result<Lease, Option<Rejection>> {
    let address = match asker.peer {
        Peer::Tcp(address) => Some(address.ip()),
        Peer::Unix => None,
    };
    let balancer = &asker.upstream.balancer;
    let choose = || balancer.pick(&Request { now: Instant::now(), client: address, tried: attempts.tried() });
    let pool = balancer.pool();
    if !pool.has_queue() {
        match choose() {
            Ok(lease) => return Ok(lease),
            Err(NoChoice::NoneLeft) => return Err(None),
            Err(NoChoice::Full) if pool.settings().queue.length == 0 => return Err(Some(Rejection::BackendsFull)),
            Err(NoChoice::Full) => {}
        }
    }
    let place = pool.queue().ok_or(Some(Rejection::QueueFull))?;
    let timeout = pool.settings().queue.timeout;
    let turn = async {
        loop {
            place.called().await;
            match choose() {
                Ok(lease) => return Ok(lease),
                Err(NoChoice::NoneLeft) => return Err(None),
                Err(NoChoice::Full) => {}
            }
        }
    };
    tokio::select! {
        chosen = turn => chosen,
        () = asker.client.left() => Err(Some(Rejection::LeftQueue)),
        () = tokio::time::sleep(timeout) => Err(Some(Rejection::QueueTimeout)),
    }
}
