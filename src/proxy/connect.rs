//! Finding a backend that answers: pick, dial, and on to the next one where that failed.

use std::sync::Arc;
use std::time::Instant;

use crate::backends::{Backend, Lease};
use crate::balancer::{NoChoice, Request};
use crate::net::{self, Peer, Stream};
use crate::telemetry::{Cause, Rejection};

use super::record::Record;
use super::service::Service;

/// A connection to a backend, counted on it.
pub(super) struct Connected {
    pub(super) stream: Stream,
    pub(super) lease: Lease,
}

/// Why a client can't be served.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// There was no backend that could be connected to.
    Closed(Cause),
    /// The backends have no room.
    Rejected(Rejection),
}

/// Backends that were tried for one client; none is tried twice.
#[derive(Default)]
pub(super) struct Tried(Vec<Arc<Backend>>);

impl Tried {
    /// One that could not be connected to, or ended before a byte went either way.
    pub(super) fn add(&mut self, backend: &Arc<Backend>) {
        self.0.push(backend.clone());
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Tries backends, each at most once and `attempts` at most. Not a byte of the client is read before one answers.
/// Safe to cancel.
///
/// # Errors
/// Why the client can't be served; each attempt is in the record.
pub(super) async fn to_backend(
    service: &Service,
    client: &Stream,
    record: &mut Record<'_>,
    tried: &mut Tried,
) -> Result<Connected, Refusal> {
    let pool = service.balancer.pool();
    let mut cause = if tried.0.is_empty() { Cause::NoBackend } else { Cause::ConnectFailed };
    while tried.0.len() < pool.settings().attempts.get() {
        let lease = match pick(service, client, record, tried).await {
            Ok(lease) => lease,
            Err(Some(reason)) => return Err(Refusal::Rejected(reason)),
            Err(None) => break,
        };
        let _retry = if tried.0.is_empty() {
            None
        } else {
            let Some(retry) = pool.retry().await else { break };
            Some(retry)
        };
        let started = Instant::now();
        let target = &lease.backend().identity().target;
        match net::dial(target, service.next_source(target), &service.dial).await {
            Ok(stream) => {
                let took = started.elapsed();
                lease.connected(took);
                service.pool_histograms.connect.record(took);
                record.connected(lease.backend(), took);
                return Ok(Connected { stream, lease });
            }
            Err(error) => {
                tracing::debug!(listener = service.name(), backend = lease.backend().label(), %error);
                // One attempt that was the backend's fault makes it more than our own trouble.
                if error.failure.is_backends_fault() {
                    cause = Cause::ConnectFailed;
                } else if cause == Cause::NoBackend {
                    cause = Cause::Internal;
                }
                record.attempt_failed(lease.backend(), error.failure);
                tried.add(lease.backend());
                lease.connect_failed(error.failure, Instant::now());
            }
        }
    }
    Err(Refusal::Closed(cause))
}

/// Chooses a backend, waiting in the pool's queue while all are full. `Err(None)`: there is none left to try.
async fn pick(
    service: &Service,
    client: &Stream,
    record: &Record<'_>,
    tried: &Tried,
) -> Result<Lease, Option<Rejection>> {
    let address = match record.peer() {
        Peer::Tcp(address) => Some(address.ip()),
        Peer::Unix => None,
    };
    let choose = || service.balancer.pick(&Request { now: Instant::now(), client: address, tried: &tried.0 });
    let pool = service.balancer.pool();
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
        () = client.left() => Err(Some(Rejection::LeftQueue)),
        () = tokio::time::sleep(pool.settings().queue.timeout) => Err(Some(Rejection::QueueTimeout)),
    }
}
