//! Finding a backend that answers: pick (waiting in the queue for room), dial or take a kept connection, and on to the
//! next one where that failed.

use std::time::Instant;

use crate::backends::Lease;
use crate::balancer::{NoChoice, Request};
use crate::net::{self, ConnectFailure, Peer, Stream};
use crate::telemetry::{Cause, Rejection};

use super::http::Kept;
use super::record::Attempts;
use super::service::Service;

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
    /// There was no backend that could be connected to.
    Closed(Cause),
    /// The backends have no room.
    Rejected(Rejection),
}

/// Who asks for a backend.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) service: &'a Service,
    pub(super) client: &'a Stream,
    pub(super) peer: Peer,
    /// Connections that have served a request before, where they will do.
    pub(super) kept: Option<&'a Kept>,
}

/// Tries backends, each at most once and `attempts` at most. Not a byte of the client is read before one answers.
/// Safe to cancel.
///
/// # Errors
/// Why the client can't be served.
pub(super) async fn to_backend(asker: Asker<'_>, attempts: &mut Attempts) -> Result<Connected, Refusal> {
    let pool = asker.service.balancer.pool();
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
        if let Some(connected) = dial(asker, lease, attempts).await {
            return Ok(connected);
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
        Some(connected) => Ok(connected),
        None => to_backend(Asker { kept: None, ..asker }, attempts).await,
    }
}

async fn dial(asker: Asker<'_>, lease: Lease, attempts: &mut Attempts) -> Option<Connected> {
    let service = asker.service;
    let started = Instant::now();
    let target = &lease.backend().identity().target;
    match net::dial(target, service.next_source(target), &service.dial).await {
        Ok(stream) => {
            let took = started.elapsed();
            lease.connected(took);
            service.pool_histograms.connect.record(took);
            attempts.connected(lease.backend(), Some(took));
            Some(Connected { stream, lease, is_reused: false })
        }
        Err(error) => {
            tracing::debug!(listener = service.name(), backend = lease.backend().label(), %error);
            attempts.failed(lease.backend(), error.failure);
            lease.connect_failed(error.failure, Instant::now());
            None
        }
    }
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
    let balancer = &asker.service.balancer;
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
        () = tokio::time::sleep(pool.settings().queue.timeout) => Err(Some(Rejection::QueueTimeout)),
    }
}
