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
use crate::net::{self, Accepted, ListenSocket, Peer};
use crate::relay::Tally;
use crate::telemetry::{AcceptError, Cause, Rejection};

use super::connection;
use super::frontend::{Frontend, Worker};
use super::record::Record;
use super::workers::{Admitted, Permits};

/// The first pause after an accept that failed for want of files or memory; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The longest: what is missing may be there again at any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// While a door closes, those who live have a turn after so many who waited at it.
const ADMITTED_AT_ONCE: i32 = 128;

/// An address that is listened on, and what serves its connections now: a reload puts another service in place, while the sockets stay
/// open. Shared by all workers.
pub struct Acceptor {
    frontend: ArcSwap<Frontend>,
    is_closing: watch::Sender<bool>,
}

impl Acceptor {
    /// An open one.
    pub fn new(frontend: Arc<Frontend>) -> Arc<Self> {
        Arc::new(Self { frontend: ArcSwap::new(frontend), is_closing: watch::Sender::new(false) })
    }

    /// From the next connection on, `service` serves.
    pub fn set_frontend(&self, frontend: Arc<Frontend>) {
        self.frontend.store(frontend);
    }

    /// Accepts no more once the kernel's queue is empty.
    pub fn close(&self) {
        self.is_closing.send_replace(true);
    }
}

/// Accepts until the door closes, then empties the queue, so that nobody the kernel let in is dropped.
///
/// `_accepting` is held until then: the drain waits for it before it counts who is left.
pub async fn accept_loop(worker: Rc<Worker>, acceptor: Arc<Acceptor>, listener: ListenSocket, _accepting: Permit) {
    let mut closes = acceptor.is_closing.subscribe();
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
                admit(&worker, &acceptor.frontend.load(), client, peer);
                // In a flood there is always another one, and the select would never come to this.
                if *acceptor.is_closing.borrow() {
                    break;
                }
            }
            Err(error) => {
                let (frontend, reason) = (acceptor.frontend.load_full(), reason_of(&error));
                frontend.counters(worker.id).accept_error(reason);
                tracing::warn!(listener = frontend.name(), %error, pause_ms = pause.as_millis(), "accept failed; trying again");
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
        admit(&worker, &acceptor.frontend.load(), client, peer);
        if number % ADMITTED_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Serves what other workers hand over, until dropped.
pub async fn serve_inbox(worker: Rc<Worker>, mut inbox: UnboundedReceiver<Admitted>) {
    while let Some(admitted) = inbox.recv().await {
        begin(&worker, admitted);
    }
}

/// Lets the connection in, here or on a less loaded worker; or refuses it.
fn admit(worker: &Rc<Worker>, frontend: &Arc<Frontend>, accepted: Accepted, peer: Peer) {
    frontend.counters(worker.id).accepted();
    match permits(frontend, peer) {
        Ok(permits) => {
            let admitted = Admitted { frontend: frontend.clone(), accepted, peer, permits };
            if let Some(admitted) = worker.workers.rebalance(worker.id, admitted) {
                begin(worker, admitted);
            }
        }
        Err(reason) => {
            accepted.refuse();
            Record::open(worker, frontend, peer, &Tally::default()).reject(reason);
        }
    }
}

/// Starts a task for the connection.
fn begin(worker: &Rc<Worker>, admitted: Admitted) {
    let Admitted { frontend, accepted, peer, permits } = admitted;
    match accepted.into_transport() {
        Ok(client) => drop(spawn_local(connection::serve(worker.clone(), frontend, client, peer, permits))),
        Err(error) => {
            tracing::warn!(listener = frontend.name(), %error, "an accepted socket could not be registered");
            Record::open(worker, &frontend, peer, &Tally::default()).close(Cause::Internal);
        }
    }
}

/// The right to one more connection. A client that is known by its address is judged at once: a flood of those that are denied costs
/// no task each.
fn permits(frontend: &Frontend, peer: Peer) -> Result<Permits, Rejection> {
    if frontend.access_rules.knows_client_by_address() {
        frontend.access_rules.allows(peer)?;
    }
    let process = frontend.global_limit.try_acquire().ok_or(Rejection::MaxConnections)?;
    let listener = frontend.own_limit.try_acquire().ok_or(Rejection::ListenerMaxConnections)?;
    // Last: who is refused for want of room pays nothing of what it may take.
    let client = match frontend.access_rules.knows_client_by_address() {
        true => frontend.access_rules.count(peer)?,
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
