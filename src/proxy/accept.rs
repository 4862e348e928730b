//! The accept loop: from the kernel's queue to a task a connection. It ends only when its acceptor is closed.

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

use super::admitted::{Admission, Admitted, Permits};
use super::connection;
use super::frontend::Frontend;
use super::record::Record;
use super::worker::Worker;

/// The first pause after an accept that failed for want of files or memory; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The longest: what is missing may be available again at any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// While an acceptor closes, established connections get a turn after so many that were still in its queue.
const ADMITTED_AT_ONCE: i32 = 128;

/// An address that is listened on, and what serves its connections now: a reload puts another frontend in place, while
/// the sockets stay open. Shared by all workers.
pub struct Acceptor {
    frontend: ArcSwap<Frontend>,
    is_closing: watch::Sender<bool>,
}

impl Acceptor {
    /// An open one.
    pub fn new(frontend: Arc<Frontend>) -> Arc<Self> {
        Arc::new(Self { frontend: ArcSwap::new(frontend), is_closing: watch::Sender::new(false) })
    }

    /// From the next connection on, `frontend` serves.
    pub fn set_frontend(&self, frontend: Arc<Frontend>) {
        self.frontend.store(frontend);
    }

    /// Accepts no more once the kernel's queue is empty.
    pub fn close(&self) {
        self.is_closing.send_replace(true);
    }
}

/// Accepts until the acceptor closes, then empties the queue, so that no client whose handshake is complete is dropped.
///
/// `_accepting` is held until then: the drain waits for it before it counts the open connections.
pub async fn accept_loop(worker: Rc<Worker>, acceptor: Arc<Acceptor>, socket: ListenSocket, _accepting: Permit) {
    let mut closes = acceptor.is_closing.subscribe();
    let mut closing = pin!(async move {
        // An error means that the acceptor was dropped, which closes it too.
        let _ = closes.wait_for(|is_closing| *is_closing).await;
    });
    let mut pause = SHORTEST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = &mut closing => break,
        };
        match accepted {
            Ok((client, peer)) => {
                pause = SHORTEST_PAUSE;
                admit(&worker, &acceptor.frontend.load(), client, peer);
                // In a flood there is always another one, and the select would never come to the closing.
                if *acceptor.is_closing.borrow() {
                    break;
                }
            }
            Err(error) => {
                report_accept_error(&worker, &acceptor.frontend.load(), &error, pause);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = &mut closing => break,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    empty_queue(&worker, &acceptor, &socket).await;
}

async fn empty_queue(worker: &Rc<Worker>, acceptor: &Acceptor, socket: &ListenSocket) {
    // Bounded: another process may hold the same queue, and clients keep it full.
    for number in 1..=net::BACKLOG {
        let Some((client, peer)) = socket.accept_waiting() else { return };
        admit(worker, &acceptor.frontend.load(), client, peer);
        if number % ADMITTED_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn report_accept_error(worker: &Worker, frontend: &Frontend, error: &io::Error, pause: Duration) {
    frontend.counters(worker.id).accept_error(reason_of(error));
    let pause_ms = pause.as_millis();
    tracing::warn!(listener = frontend.name(), %error, pause_ms, "accept failed; trying again");
}

/// Serves what other workers give away, until dropped.
pub async fn serve_inbox(worker: Rc<Worker>, mut inbox: UnboundedReceiver<Admitted>) {
    while let Some(admitted) = inbox.recv().await {
        begin(&worker, admitted);
    }
}

/// Lets the connection in, here or on a less loaded worker; or refuses it.
fn admit(worker: &Rc<Worker>, frontend: &Arc<Frontend>, client: Accepted, peer: Peer) {
    frontend.counters(worker.id).accepted();
    let id = worker.connection_ids.next();
    match permits(frontend, peer) {
        Ok(permits) => {
            let admission = Admission { id, frontend: frontend.clone(), peer, permits };
            let admitted = Admitted { accepted: client, admission };
            if let Some(admitted) = worker.workers.rebalance(worker.id, admitted) {
                begin(worker, admitted);
            }
        }
        Err(reason) => {
            client.refuse();
            Record::open(worker, frontend, id, peer, &Tally::default()).reject(reason);
        }
    }
}

/// Starts a task for the connection.
fn begin(worker: &Rc<Worker>, admitted: Admitted) {
    let Admitted { accepted, admission } = admitted;
    match accepted.into_transport() {
        Ok(client) => {
            spawn_local(connection::serve(worker.clone(), client, admission));
        }
        Err(error) => {
            let Admission { id, frontend, peer, .. } = admission;
            tracing::warn!(listener = frontend.name(), %error, "an accepted socket could not be registered");
            Record::open(worker, &frontend, id, peer, &Tally::default()).close(Cause::Internal);
        }
    }
}

/// The right to one more connection. A client that is known by its address is judged at once: a flood of those that are
/// denied costs no task each.
fn permits(frontend: &Frontend, peer: Peer) -> Result<Permits, Rejection> {
    let is_known = !frontend.requires_proxy_header;
    if is_known {
        frontend.access_rules.check(peer)?;
    }
    let (process, listener) = frontend.try_acquire()?;
    // Last: a client that is refused for want of room pays nothing of what it may take.
    let client = if is_known { frontend.access_rules.count(peer)? } else { None };
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
