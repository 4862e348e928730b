//! One worker: a thread, a single-threaded runtime, and its own socket of every listener.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, LocalOptions, RuntimeMetrics};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;

use crate::lifecycle::{DrainWatch, Phase};
use crate::net::Listener;
use crate::proxy::{Crew, Handover, Worker, accept_loop, serve_inbox};
use crate::relay::{Method, Pipes, Tools};

use super::doors::Opening;

/// What a worker is started with.
pub(super) struct Job {
    pub(super) id: usize,
    /// Its own sockets: those that are there already before it says that it accepts, others as they come.
    pub(super) openings: UnboundedReceiver<Opening>,
    /// The shortest idle limit of any listener.
    pub(super) shortest_limit: Duration,
    pub(super) drain: DrainWatch,
    /// All workers, and what they hand over to this one.
    pub(super) crew: Arc<Crew>,
    pub(super) inbox: UnboundedReceiver<Handover>,
    /// How bytes are moved.
    pub(super) method: Method,
}

/// Starts a worker, and waits until it accepts.
pub(super) fn start(job: Job) -> io::Result<(JoinHandle<()>, RuntimeMetrics)> {
    let (ready, accepting) = mpsc::channel();
    let name = format!("lb-worker-{}", job.id);
    let thread = thread::Builder::new().name(name).spawn(move || run(job, &ready))?;
    let ended = |_| Err(io::Error::other("the worker ended before it accepted"));
    Ok((thread, accepting.recv().unwrap_or_else(ended)?))
}

/// Runs until the drain is over. Connections that live then are dropped with the runtime: their guards reset the peers
/// and count them.
fn run(job: Job, ready: &mpsc::Sender<io::Result<RuntimeMetrics>>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let mut drain = job.drain.clone();
        let started = begin(job);
        let is_up = started.is_ok();
        // Nobody hears it when the process gave up meanwhile.
        let _ = ready.send(started.map(|()| Handle::current().metrics()));
        if is_up {
            drain.reached(Phase::Over).await;
        }
    });
}

fn begin(job: Job) -> io::Result<()> {
    let mut openings = job.openings;
    let tools = Tools { scratch: Rc::default(), pipes: Pipes::new(job.crew.len()), method: job.method };
    let worker = Worker::new(job.id, job.shortest_limit, job.drain, job.crew, tools);
    drop(spawn_local(serve_inbox(worker.clone(), job.inbox)));
    while let Ok(opening) = openings.try_recv() {
        open(&worker, opening)?;
    }
    let opener = worker.clone();
    drop(spawn_local(async move {
        while let Some(opening) = openings.recv().await {
            if let Err(error) = open(&opener, opening) {
                tracing::error!(%error, worker = opener.id, "a listening socket could not be registered");
            }
        }
    }));
    let drained = worker.clone();
    drop(spawn_local(async move { drained.follow_drain().await }));
    drop(spawn_local(async move {
        let mut sweeps = tokio::time::interval(worker.roster.period());
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            sweeps.tick().await;
            worker.sweep(Instant::now());
        }
    }));
    Ok(())
}

fn open(worker: &Rc<Worker>, opening: Opening) -> io::Result<()> {
    let Opening { door, socket, accepting } = opening;
    let listener = Listener::new(socket)?;
    drop(spawn_local(accept_loop(worker.clone(), door, listener, accepting)));
    Ok(())
}
