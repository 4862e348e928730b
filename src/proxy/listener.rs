//! The accept loop: from the kernel's queue to a task a connection. It never leaves before it is told to.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;

use crate::lifecycle::{Permit, Phase};
use crate::net::{self, Accepted, Listener, Peer};
use crate::relay::Tally;
use crate::telemetry::{AcceptError, Cause, Rejection};

use super::connection;
use super::crew::{Handover, Permits};
use super::record::Record;
use super::service::{Service, Worker};

/// The first pause after an accept that failed for want of files or memory; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The longest: what is missing may be there again at any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until the drain closes the listener, then empties the queue, so that nobody the kernel let in is dropped.
///
/// `_accepting` is held until then: the drain waits for it before it counts who is left.
pub async fn accept_loop(worker: Rc<Worker>, service: Arc<Service>, listener: Listener, _accepting: Permit) {
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

/// Serves what other workers hand over, until dropped.
pub async fn serve_inbox(worker: Rc<Worker>, mut inbox: UnboundedReceiver<Handover>) {
    while let Some(handover) = inbox.recv().await {
        begin(&worker, handover);
    }
}

/// Lets the connection in, here or on a less loaded worker; or refuses it.
fn admit(worker: &Rc<Worker>, service: &Arc<Service>, accepted: Accepted, peer: Peer) {
    service.counters(worker.id).accepted();
    match permits(service) {
        Ok(permits) => {
            let handover = Handover { service: service.clone(), accepted, peer, permits };
            if let Some(handover) = worker.crew.hand_over(worker.id, handover) {
                begin(worker, handover);
            }
        }
        Err(reason) => {
            accepted.refuse();
            Record::open(worker, service, peer, &Tally::default()).reject(reason);
        }
    }
}

/// Starts a task for the connection.
fn begin(worker: &Rc<Worker>, handover: Handover) {
    let Handover { service, accepted, peer, permits } = handover;
    match accepted.into_stream() {
        Ok(client) => drop(spawn_local(connection::serve(worker.clone(), service, client, peer, permits))),
        Err(error) => {
            tracing::warn!(listener = service.name(), %error, "an accepted socket could not be registered");
            Record::open(worker, &service, peer, &Tally::default()).close(Cause::Internal);
        }
    }
}

/// The right to one more connection, from the process and from the listener.
fn permits(service: &Service) -> Result<Permits, Rejection> {
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
