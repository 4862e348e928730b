//! Finding a backend that answers: pick, dial, and on to the next one where that failed.

use std::sync::Arc;
use std::time::Instant;

use crate::backends::{Backend, Lease};
use crate::balancer::Request;
use crate::config::BackendAddress;
use crate::net::{self, Peer, Stream};
use crate::telemetry::Cause;

use super::record::Record;
use super::service::Service;

/// A connection to a backend, counted on it.
pub(super) struct Connected {
    pub(super) stream: Stream,
    pub(super) lease: Lease,
}

/// Tries backends, each at most once and `attempts` at most. Not a byte of the client is read before one answers.
/// Safe to cancel.
///
/// # Errors
/// Why the client can't be served; each attempt is in the record.
pub(super) async fn to_backend(service: &Service, record: &mut Record<'_>) -> Result<Connected, Cause> {
    let pool = service.balancer.pool();
    let client = match record.peer() {
        Peer::Tcp(address) => Some(address.ip()),
        Peer::Unix => None,
    };
    let mut tried: Vec<Arc<Backend>> = Vec::new();
    let mut cause = Cause::NoBackend;
    while tried.len() < pool.settings().attempts.get() {
        let started = Instant::now();
        let Some(lease) = service.balancer.pick(&Request { now: started, client, tried: &tried }) else { break };
        if !tried.is_empty() {
            pool.count_retry();
        }
        let BackendAddress::Tcp(address) = lease.backend().address();
        match net::dial(*address, &service.dial).await {
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
                tried.push(lease.backend().clone());
                lease.connect_failed(error.failure, Instant::now());
            }
        }
    }
    Err(cause)
}
