//! The start: everything is bound and opened before the first worker accepts.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime, RuntimeMetrics};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;

use crate::access_log::AccessLog;
use crate::admin::{Exporter, Guard, Reloads, View};
use crate::config::{AdminConfig, BindAddress, Config, Loaded, LogConfig, LogFormat, Source};
use crate::file_watch::FileWatch;
use crate::lifecycle::{ConnectionLimit, CutOrder, Cutter, Drain, DrainWatch, Inquiry, OpenConnections};
use crate::proxy::{Admitted, ListenerDeps, Workers};
use crate::relay::{Engine, Pipes};
use crate::telemetry::{LogSettings, log_writer, start_log};

use super::admin_server::{read_token, start_admin};
use super::capacity::Capacity;
use super::error::RunError;
use super::listen_sockets::{ListenSockets, SocketForWorker};
use super::main_loop::{DrainEnd, MainLoop};
use super::reload::log_warnings;
use super::running_config::RunningConfig;
use super::server_state::ServerState;
use super::signals::Signals;
use super::systemd;
use super::upgrade::{OldProcess, Upgrade};
use super::worker_thread::{self, WorkerConfig};

/// Listeners and pools that the first line of the log names.
const MOST_NAMES: usize = 20;
/// The end waits so long for the readers of the logs, or for a further signal.
const FLUSH_TIME: Duration = Duration::from_secs(4);
/// The same where a second signal has asked for an end at once: readers that read have all lines by then.
const FLUSH_TIME_AFTER_CUT: Duration = Duration::from_secs(1);

/// A balancer that accepts.
pub struct Running {
    /// The main thread's.
    runtime: LocalRuntime,
    workers: Vec<JoinHandle<()>>,
    main_loop: MainLoop,
}

/// Runs until a signal ends it. `source` is what `loaded` was read from, and is read again by a reload.
///
/// # Errors
/// It could not start. Where a later worker was the one that failed, the earlier ones may have served already.
pub fn run(source: Source, loaded: &Loaded) -> Result<(), RunError> {
    start(source, loaded)?.until_stopped();
    Ok(())
}

/// Binds everything, then starts to accept.
///
/// # Errors
/// An address, a file or a thread could not be had.
pub fn start(source: Source, loaded: &Loaded) -> Result<Running, RunError> {
    let config = &loaded.config;
    let (target, json) = (config.log.program.clone(), config.log.format == LogFormat::Json);
    start_log(LogSettings { level: config.log.level, json, target })
        .map_err(|source| RunError::Log { target: config.log.program.to_string(), source })?;
    tracing::info!(
        event = "started",
        version = env!("CARGO_PKG_VERSION"),
        commit = env!("LB_BUILD_COMMIT"),
        config = loaded.file.as_ref().map(|file| file.display().to_string()),
        listeners = names(config.listeners.iter().map(|listener| &*listener.name)),
        pools = names(config.pools.iter().map(|pool| &*pool.name)),
        "starting"
    );
    log_warnings(loaded);
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).map_err(RunError::Runtime)?;
    let (workers, main_loop) = runtime.block_on(set_up(source, loaded))?;
    Ok(Running { runtime, workers, main_loop })
}

/// Names as a text, not more than can be read.
fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MOST_NAMES);
    let named = names.take(MOST_NAMES).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

impl Running {
    /// Serves until a signal or the API stops it, then drains.
    pub fn until_stopped(mut self) {
        let limit = match self.runtime.block_on(self.main_loop.serve_and_drain()) {
            DrainEnd::Over => FLUSH_TIME,
            DrainEnd::Cut => FLUSH_TIME_AFTER_CUT,
        };
        self.end(limit);
    }

    /// Ends now: open connections are cut and counted.
    pub fn stop(self) {
        self.end(FLUSH_TIME);
    }

    /// The logs have `flush_time` to be written.
    fn end(mut self, flush_time: Duration) {
        let forced = self.main_loop.close();
        for worker in self.workers {
            // A panic of the worker was reported by the panic hook.
            let _ = worker.join();
        }
        tracing::info!(forced, "stopped");
        let access_log = self.main_loop.state.view.access_log.clone();
        let flush = self.runtime.spawn_blocking(move || flush_logs(access_log.as_deref(), flush_time));
        self.runtime.block_on(async {
            tokio::select! {
                _ = flush => {}
                _ = self.main_loop.signals.next_stop() => {}
            }
        });
        // Doesn't wait for the flush that a signal has cut short.
        self.runtime.shutdown_background();
    }
}

/// Writes what the logs have. The program's own has half the time to itself: it tells what becomes of the other.
fn flush_logs(access_log: Option<&AccessLog>, limit: Duration) {
    let limit = limit / 2;
    if access_log.is_some_and(|log| !log.flush(limit)) {
        tracing::warn!("the access log takes no more; its last lines are lost");
    }
    if let Some(log) = log_writer() {
        log.flush(limit);
    }
}

async fn set_up(source: Source, loaded: &Loaded) -> Result<(Vec<JoinHandle<()>>, MainLoop), RunError> {
    let (started, config) = (Instant::now(), &loaded.config);
    // Before names are resolved, which takes a while: the file may change meanwhile.
    let file = FileWatch::new(loaded.file.clone());
    let signals = Signals::new().map_err(RunError::Signals)?;
    let mut upgrade = Upgrade::new();
    let mut old_process = OldProcess::receive().map_err(RunError::TakeOver)?;
    let capacity = Capacity::detect(config.workers);
    let limits = capacity.limits(config)?;
    let connections = ConnectionLimit::new(limits.connections);
    let idle_connections = ConnectionLimit::new(limits.idle_connections);
    let exporter = Exporter::install().map_err(|error| RunError::Metrics(io::Error::other(error)))?;
    let access_log = open_access_log(&config.log)?;
    let (drain, watch) = Drain::new();
    let shortest_limit = config.shortest_limit();
    let (cutter, cut_orders) = Cutter::new(capacity.workers);
    let (open_connections, inquiries) = OpenConnections::new(capacity.workers, started);
    let pipes = Pipes::new(config.relay.mode, capacity.workers);
    let engine = Engine::choose(config.relay.engine, capacity.workers).map_err(RunError::Engine)?;
    let workers = Workers::new(capacity.workers, idle_connections.clone(), &watch);
    let (new_sockets, worker_configs) =
        worker_configs(config, workers, cut_orders, inquiries, (&pipes, &engine), shortest_limit, &watch);
    let deps =
        ListenerDeps { global_limit: connections.clone(), access_log: access_log.clone(), workers: capacity.workers };
    let carried = old_process.take_pools();
    let listen_sockets = ListenSockets::new(new_sockets, old_process.take_sockets());
    let mut running = RunningConfig::new(deps, listen_sockets, cutter, carried);
    running.apply(config).await?;
    let (sender, commands) = unbounded_channel();
    let view = Arc::new(View {
        started,
        workers: capacity.workers,
        runtimes: OnceLock::new(),
        connections,
        open_connections,
        drain: watch,
        shown: ArcSwap::from_pointee(running.shown()),
        access_log,
        pipes,
        engine,
        config_file: loaded.file.as_ref().map(|file| file.display().to_string()),
        reloads: Reloads::default(),
        guard: guard_of(&config.admin)?,
        history: old_process.take_history(),
        commands: sender,
        former_processes: upgrade.former_processes().clone(),
    });
    let watched = view.clone();
    spawn_local(async move { watched.keep_history().await });
    let admin = start_admin(&config.admin, &mut running.listen_sockets, &view, exporter).await?;
    running.finish_take_over()?;
    running.listen_sockets.close_unclaimed();
    let (workers, runtimes) = start_workers(worker_configs)?;
    view.runtimes.set(runtimes).expect("nobody else starts workers");
    capacity.log_start(view.connections.max(), &view.engine, &view.pipes);
    old_process.report_ready();
    upgrade.limit_former_processes();
    systemd::ready();
    let (config, effective) = (config.clone(), loaded.effective.clone());
    let state =
        ServerState { source, config, effective, capacity, idle_connections, running, view, file, shortest_limit };
    Ok((workers, MainLoop { state, admin, drain, signals, commands, upgrade }))
}

/// The configuration of each worker, and the channel for its sockets.
fn worker_configs(
    config: &Config,
    (workers, inboxes): (Arc<Workers>, Vec<UnboundedReceiver<Admitted>>),
    cut_orders: Vec<UnboundedReceiver<CutOrder>>,
    inquiries: Vec<UnboundedReceiver<Inquiry>>,
    (pipes, engine): (&Arc<Pipes>, &Arc<Engine>),
    shortest_limit: Duration,
    watch: &DrainWatch,
) -> (Vec<UnboundedSender<SocketForWorker>>, Vec<WorkerConfig>) {
    let worker_config = |(id, ((inbox, cut_orders), inquiries))| {
        let (sender, new_sockets) = unbounded_channel();
        let (drain, workers, pipes, engine) = (watch.clone(), workers.clone(), pipes.clone(), engine.clone());
        let relay_mode = config.relay.mode;
        let worker = WorkerConfig {
            id,
            new_sockets,
            shortest_limit,
            drain,
            workers,
            inbox,
            cut_orders,
            inquiries,
            relay_mode,
            pipes,
            engine,
        };
        (sender, worker)
    };
    inboxes.into_iter().zip(cut_orders).zip(inquiries).enumerate().map(worker_config).unzip()
}

fn start_workers(configs: Vec<WorkerConfig>) -> Result<(Vec<JoinHandle<()>>, Vec<RuntimeMetrics>), RunError> {
    configs.into_iter().map(|config| worker_thread::start(config).map_err(RunError::Worker)).collect()
}

fn guard_of(admin: &AdminConfig) -> Result<Guard, RunError> {
    let name = match &admin.bind {
        Some(BindAddress::Name(host, _)) => Some(host.clone()),
        _ => None,
    };
    let guard = Guard::new(admin.allowed_hosts.iter().cloned().chain(name));
    guard.set_token(read_token(admin)?);
    Ok(guard)
}

fn open_access_log(settings: &LogConfig) -> Result<Option<Arc<AccessLog>>, RunError> {
    let Some(target) = &settings.access else { return Ok(None) };
    let log = AccessLog::start(target.clone(), settings.format, settings.access_format.clone())
        .map_err(|source| RunError::AccessLog { target: target.to_string(), source })?;
    Ok(Some(Arc::new(log)))
}
