//! The accept loop: from the kernel's queue to a task a connection. It never leaves before it is told to.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::lifecycle::{Permit, Phase};
use crate::net::{self, Listener, Peer, Stream};
use crate::relay::Tally;
use crate::telemetry::{AcceptError, Rejection};

use super::connection;
use super::record::Record;
use super::service::{Service, Worker};

/// The first pause after an accept that failed for want of files or memory; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The longest: what is missing may be there again at any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until the drain closes the listener, then empties the queue, so that nobody the kernel let in is dropped.
pub async fn accept_loop(worker: Rc<Worker>, service: Arc<Service>, listener: Listener) {
    let mut drain = worker.drain.clone();
    let mut closing = pin!(drain.reached(Phase::Closing));
    let mut pause = SHORTEST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = &mut closing => break,
        };
        match accepted {
            Ok((client, peer)) => {
                pause = SHORTEST_PAUSE;
                admit(&worker, &service, client, peer);
            }
            Err(error) => {
                let reason = reason_of(&error);
                service.counters(worker.id).accept_error(reason);
                tracing::warn!(listener = service.name(), %error, pause_ms = pause.as_millis(), "accept failed; trying again");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = &mut closing => break,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    while let Some((client, peer)) = listener.accept_waiting() {
        admit(&worker, &service, client, peer);
    }
}

/// Starts a task for the connection, or refuses it.
fn admit(worker: &Rc<Worker>, service: &Arc<Service>, client: Stream, peer: Peer) {
    service.counters(worker.id).accepted();
    match permits(service) {
        Ok(permits) => {
            let serving = connection::serve(worker.clone(), service.clone(), client, peer, permits);
            drop(tokio::task::spawn_local(serving));
        }
        Err(reason) => {
            // A reset leaves no TIME_WAIT behind, and nobody can take it for an empty answer.
            client.reset_on_close();
            Record::open(worker, service, peer, &Tally::default()).reject(reason);
        }
    }
}

/// The right to one more connection, from the process and from the listener.
fn permits(service: &Service) -> Result<(Permit, Option<Permit>), Rejection> {
    let global = service.global_limit.try_acquire().ok_or(Rejection::MaxConnections)?;
    let own = match &service.own_limit {
        None => None,
        Some(limit) => Some(limit.try_acquire().ok_or(Rejection::ListenerMaxConnections)?),
    };
    Ok((global, own))
}

fn reason_of(error: &io::Error) -> AcceptError {
    if net::is_out_of_files(error) {
        AcceptError::NoFile
    } else if net::is_out_of_memory(error) {
        AcceptError::NoMemory
    } else {
        AcceptError::Other
    }
}
