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

use crate::config::RelayMode;
use crate::lifecycle::{DrainWatch, Phase};
use crate::net::ListenSocket;
use crate::proxy::{Admitted, Worker, Workers, accept_loop, serve_inbox};
use crate::relay::{Pipes, RelayResources};

use super::listen_sockets::SocketForWorker;

/// What a worker is started with.
pub(super) struct WorkerConfig {
    pub(super) id: usize,
    /// Its own sockets: those that are there already before it says that it accepts, others as they come.
    pub(super) new_sockets: UnboundedReceiver<SocketForWorker>,
    /// The shortest idle limit of any listener.
    pub(super) shortest_limit: Duration,
    pub(super) drain: DrainWatch,
    /// All workers, and what they hand over to this one.
    pub(super) workers: Arc<Workers>,
    pub(super) inbox: UnboundedReceiver<Admitted>,
    /// How bytes are moved.
    pub(super) method: RelayMode,
}

/// Starts a worker, and waits until it accepts.
pub(super) fn start(config: WorkerConfig) -> io::Result<(JoinHandle<()>, RuntimeMetrics)> {
    let (ready, accepting) = mpsc::channel();
    let name = format!("lb-worker-{}", config.id);
    let thread = thread::Builder::new().name(name).spawn(move || run(config, &ready))?;
    let ended = |_| Err(io::Error::other("the worker ended before it accepted"));
    Ok((thread, accepting.recv().unwrap_or_else(ended)?))
}

/// Runs until the drain is over. Connections that live then are dropped with the runtime: their guards reset the peers
/// and count them.
fn run(config: WorkerConfig, ready: &mpsc::Sender<io::Result<RuntimeMetrics>>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let mut drain = config.drain.clone();
        let started = begin(config);
        let is_up = started.is_ok();
        // Nobody hears it when the process gave up meanwhile.
        let _ = ready.send(started.map(|()| Handle::current().metrics()));
        if is_up {
            drain.reached(Phase::Over).await;
        }
    });
}

fn begin(config: WorkerConfig) -> io::Result<()> {
    let mut new_sockets = config.new_sockets;
    let resources =
        RelayResources { scratch: Rc::default(), pipes: Pipes::new(config.workers.len()), mode: config.method };
    let worker = Worker::new(config.id, config.shortest_limit, config.drain, config.workers, resources);
    drop(spawn_local(serve_inbox(worker.clone(), config.inbox)));
    while let Ok(socket) = new_sockets.try_recv() {
        open(&worker, socket)?;
    }
    let opener = worker.clone();
    drop(spawn_local(async move {
        while let Some(socket) = new_sockets.recv().await {
            if let Err(error) = open(&opener, socket) {
                tracing::error!(%error, worker = opener.id, "a listening socket could not be registered");
            }
        }
    }));
    let drained = worker.clone();
    drop(spawn_local(async move { drained.follow_drain().await }));
    drop(spawn_local(async move {
        let mut sweeps = tokio::time::interval(worker.idle_timeouts.period());
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            sweeps.tick().await;
            worker.expire(Instant::now());
        }
    }));
    Ok(())
}

fn open(worker: &Rc<Worker>, socket: SocketForWorker) -> io::Result<()> {
    let SocketForWorker { acceptor, socket, accepting } = socket;
    let listener = ListenSocket::new(socket)?;
    drop(spawn_local(accept_loop(worker.clone(), acceptor, listener, accepting)));
    Ok(())
}
