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
use crate::lifecycle::{CutOrder, DrainWatch, Inquiry, Phase};
use crate::net::{self, ListenSocket};
use crate::proxy::{Admitted, Worker, Workers, accept_loop, answer_inquiries, serve_inbox};
use crate::relay::{Engine, Pipes, RelayResources, WorkerPipe};

use super::listen_sockets::SocketForWorker;

/// What a worker is started with.
pub(super) struct WorkerConfig {
    pub(super) id: usize,
    /// Sockets to accept from. Those that were sent before the start are opened before it reports that it accepts.
    pub(super) new_sockets: UnboundedReceiver<SocketForWorker>,
    /// The shortest time limit of any listener.
    pub(super) shortest_limit: Duration,
    pub(super) drain: DrainWatch,
    pub(super) workers: Arc<Workers>,
    /// Connections that other workers pass on to this one.
    pub(super) inbox: UnboundedReceiver<Admitted>,
    /// Which connections to cut.
    pub(super) cut_orders: UnboundedReceiver<CutOrder>,
    /// What operators ask of its connections.
    pub(super) inquiries: UnboundedReceiver<Inquiry>,
    pub(super) relay_mode: RelayMode,
    pub(super) pipes: Arc<Pipes>,
    pub(super) engine: Arc<Engine>,
}

/// Starts a worker, and waits until it accepts.
pub(super) fn start(config: WorkerConfig) -> io::Result<(JoinHandle<()>, RuntimeMetrics)> {
    let (ready, accepting) = mpsc::channel();
    let name = format!("lb-worker-{}", config.id);
    let thread = thread::Builder::new().name(name).spawn(move || run(config, &ready))?;
    // An error means that the thread has panicked, which the panic hook has reported.
    let started = accepting.recv().map_err(|_| io::Error::other("the worker ended before it accepted"))?;
    Ok((thread, started?))
}

/// Runs until the drain is over. Connections that are open then are dropped with the runtime: their guards reset the
/// peers and count them.
fn run(config: WorkerConfig, ready: &mpsc::Sender<io::Result<RuntimeMetrics>>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        let mut drain = config.drain.clone();
        let started = begin(config);
        let is_up = started.is_ok();
        let _ = ready.send(started.map(|()| Handle::current().metrics()));
        if is_up {
            drain.reached(Phase::Over).await;
        }
    });
}

/// Spawns the worker's own tasks.
fn begin(config: WorkerConfig) -> io::Result<()> {
    let mut new_sockets = config.new_sockets;
    let pipe = Rc::new(WorkerPipe::open(&config.pipes));
    let resources = RelayResources { scratch: Rc::default(), pipe, credit: Rc::default(), mode: config.relay_mode };
    let worker = Worker::new(config.id, config.shortest_limit, config.drain, config.workers, resources);
    if config.engine.start_on_worker() {
        spawn_local(net::hand_over_each_turn());
    }
    spawn_local(serve_inbox(worker.clone(), config.inbox));
    while let Ok(socket) = new_sockets.try_recv() {
        open(&worker, socket)?;
    }
    spawn_local(open_new_sockets(worker.clone(), new_sockets));
    spawn_local(sweep(worker.clone()));
    spawn_local(follow_cut_orders(worker.clone(), config.cut_orders));
    spawn_local(answer_inquiries(worker.clone(), config.inquiries));
    spawn_local(async move { worker.follow_drain().await });
    Ok(())
}

/// Sockets of addresses that a reload adds.
async fn open_new_sockets(worker: Rc<Worker>, mut new_sockets: UnboundedReceiver<SocketForWorker>) {
    while let Some(socket) = new_sockets.recv().await {
        if let Err(error) = open(&worker, socket) {
            tracing::error!(%error, worker = worker.id, "a listening socket could not be registered");
        }
    }
}

fn open(worker: &Rc<Worker>, socket: SocketForWorker) -> io::Result<()> {
    let SocketForWorker { acceptor, socket, accepting } = socket;
    let socket = ListenSocket::new(socket)?;
    spawn_local(accept_loop(worker.clone(), acceptor, socket, accepting));
    Ok(())
}

async fn follow_cut_orders(worker: Rc<Worker>, mut orders: UnboundedReceiver<CutOrder>) {
    while let Some(order) = orders.recv().await {
        worker.cut(&order).await;
    }
}

/// Looks for connections that were idle for too long, for ever.
async fn sweep(worker: Rc<Worker>) {
    let mut sweeps = tokio::time::interval(worker.idle_timeouts.period());
    sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        sweeps.tick().await;
        worker.expire(Instant::now());
    }
}
