//! The accept loop: from the kernel's queue to a task a connection. It ends only when its acceptor is closed.

use std::cell::OnceCell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::lifecycle::Permit;
use crate::net::{self, Accepted, ListenSocket, Peer};
use crate::telemetry::{AcceptError, Rejection};

use super::account::Account;
use super::admitted::{Admitted, Permits};
use super::connection;
use super::frontend::Frontend;
use super::listed::Listed;
use super::record::Record;
use super::worker::Worker;

/// The pause after a first failed accept, which nearly always means that files or memory ran out; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// No longer, as a connection that closes may free what was missing at any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// While an acceptor closes, the worker's other tasks get a turn after this many connections from its queue.
const ADMITTED_AT_ONCE: i32 = 128;

/// An address that is listened on, and the frontend that serves its connections now: a reload replaces the frontend,
/// while the sockets stay open. Shared by all workers.
pub struct Acceptor {
    frontend: ArcSwap<Frontend>,
    is_closing: watch::Sender<bool>,
}

impl Acceptor {
    pub fn new(frontend: Arc<Frontend>) -> Arc<Self> {
        Arc::new(Self { frontend: ArcSwap::new(frontend), is_closing: watch::Sender::new(false) })
    }

    /// Takes effect with the next connection.
    pub fn set_frontend(&self, frontend: Arc<Frontend>) {
        self.frontend.store(frontend);
    }

    /// Accepts no more once the kernel's queue is empty.
    pub fn close(&self) {
        self.is_closing.send_replace(true);
    }
}

/// Accepts until the acceptor closes, then empties the kernel's queue: closing the socket would reset the clients in
/// it, whose handshakes are complete.
///
/// `_accepting` is held to the end: the drain waits for it before it counts the open connections.
pub async fn accept_loop(worker: Rc<Worker>, acceptor: Arc<Acceptor>, socket: ListenSocket, _accepting: Permit) {
    let mut closes = acceptor.is_closing.subscribe();
    let mut closing = pin!(async move {
        // An error means that the acceptor was dropped, which closes it too.
        let _ = closes.wait_for(|is_closing| *is_closing).await;
    });
    let mut pause = SHORTEST_PAUSE;
    loop {
        let result = tokio::select! {
            biased;
            result = socket.accept() => result,
            () = &mut closing => break,
        };
        match result {
            Ok((accepted, peer)) => {
                pause = SHORTEST_PAUSE;
                admit(&worker, &acceptor.frontend.load(), accepted, peer);
                // The select prefers an accept: while there is always another one, it never looks at the closing.
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
        let Some((accepted, peer)) = socket.accept_waiting() else { return };
        admit(worker, &acceptor.frontend.load(), accepted, peer);
        if number % ADMITTED_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn report_accept_error(worker: &Worker, frontend: &Frontend, error: &io::Error, pause: Duration) {
    frontend.counters(worker.id).accept_error(reason_of(error));
    if net::is_out_of_files(error) {
        worker.idle_pool.give_way();
    }
    let pause_ms = pause.as_millis();
    tracing::warn!(listener = frontend.name(), %error, pause_ms, "accept failed; trying again");
}

/// Serves the connections that other workers pass on to this one, until dropped.
pub async fn serve_inbox(worker: Rc<Worker>, mut inbox: UnboundedReceiver<Admitted>) {
    while let Some(admitted) = inbox.recv().await {
        spawn(&worker, admitted);
    }
}

fn spawn(worker: &Rc<Worker>, admitted: Admitted) {
    let listed = Listed::new(worker, admitted);
    let connection = listed.connection().clone();
    connection.set_task(spawn_local(connection::serve(listed)).abort_handle());
}

/// Admits the connection, to this worker or to a less loaded one, or resets it.
fn admit(worker: &Rc<Worker>, frontend: &Arc<Frontend>, accepted: Accepted, peer: Peer) {
    frontend.counters(worker.id).accepted();
    let (id, accepted_at) = (worker.connection_ids.next(), Instant::now());
    let load = worker.workers.count(worker.id);
    let account = Account::new(id, accepted_at, peer, frontend.clone(), load);
    match permits(frontend, peer) {
        Ok(permits) => {
            let admitted = Admitted::new(accepted, account, permits);
            if let Some(admitted) = worker.workers.rebalance(worker.id, admitted) {
                spawn(worker, admitted);
            }
        }
        Err(reason) => {
            // Opened only to be closed: the record counts the refusal and logs it, before the client can see it.
            Record::open(&account).reject(reason);
            accepted.refuse();
        }
    }
}

/// The right to one more connection. A client is judged here rather than in a task of its own, so that a flood from
/// denied addresses stays cheap; but behind a proxy its address is known only from the PROXY header.
fn permits(frontend: &Frontend, peer: Peer) -> Result<Permits, Rejection> {
    let is_client = !frontend.awaits_proxy_header(peer);
    if is_client {
        frontend.access_rules.check(peer)?;
    }
    let (process, listener) = frontend.try_acquire()?;
    // Last: a connection that a full process or listener refuses doesn't count towards its client's rate.
    let client = if is_client { frontend.access_rules.try_acquire(peer)? } else { None };
    Ok(Permits { _process: process, _listener: listener, client: client.map(OnceCell::from).unwrap_or_default() })
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
