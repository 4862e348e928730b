//! The accept loop: from the kernel's queue to a task a connection. It never leaves before it is told to.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::lifecycle::Permit;
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

/// While a door closes, those who live have a turn after so many who waited at it.
const ADMITTED_AT_ONCE: i32 = 128;

/// An address that is listened on, and what serves its connections now: a reload puts another service in place, while the sockets stay
/// open. Shared by all workers.
pub struct Door {
    service: ArcSwap<Service>,
    is_closing: watch::Sender<bool>,
}

impl Door {
    /// An open one.
    pub fn new(service: Arc<Service>) -> Arc<Self> {
        Arc::new(Self { service: ArcSwap::new(service), is_closing: watch::Sender::new(false) })
    }

    /// From the next connection on, `service` serves.
    pub fn serve_by(&self, service: Arc<Service>) {
        self.service.store(service);
    }

    /// Accepts no more once the kernel's queue is empty.
    pub fn close(&self) {
        self.is_closing.send_replace(true);
    }
}

/// Accepts until the door closes, then empties the queue, so that nobody the kernel let in is dropped.
///
/// `_accepting` is held until then: the drain waits for it before it counts who is left.
pub async fn accept_loop(worker: Rc<Worker>, door: Arc<Door>, listener: Listener, _accepting: Permit) {
    let mut closes = door.is_closing.subscribe();
    let mut closing = pin!(async move { drop(closes.wait_for(|is_closing| *is_closing).await) });
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
                admit(&worker, &door.service.load(), client, peer);
                // In a flood there is always another one, and the select would never come to this.
                if *door.is_closing.borrow() {
                    break;
                }
            }
            Err(error) => {
                let (service, reason) = (door.service.load_full(), reason_of(&error));
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
    // Another process may hold the same queue, and clients keep it full: so many waited at the most.
    for number in 1..=net::BACKLOG {
        let Some((client, peer)) = listener.accept_waiting() else { return };
        admit(&worker, &door.service.load(), client, peer);
        if number % ADMITTED_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
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
    match permits(service, peer) {
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

/// The right to one more connection. A client that is known by its address is judged at once: a flood of those that are denied costs
/// no task each.
fn permits(service: &Service, peer: Peer) -> Result<Permits, Rejection> {
    if service.entrance.knows_client() {
        service.entrance.allows(peer)?;
    }
    let process = service.global_limit.try_acquire().ok_or(Rejection::MaxConnections)?;
    let listener = service.own_limit.try_acquire().ok_or(Rejection::ListenerMaxConnections)?;
    // Last: who is refused for want of room pays nothing of what it may take.
    let client = match service.entrance.knows_client() {
        true => service.entrance.count(peer)?,
        false => None,
    };
    Ok(Permits { _process: process, _listener: listener, client })
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
