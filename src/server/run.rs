//! Start, run, stop.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::access_log::{AccessLog, Destination, Format};
use crate::admin::{Command, Exporter, Guard, Reloads, View};
use crate::config::{self, BindAddress, Checks, Config, Loaded, LogFormat, LogLevel, Source};
use crate::lifecycle::{ConnectionLimit, Drain, Phase};
use crate::proxy::{ListenerDeps, Workers};
use crate::telemetry::{LogSettings, start_log};

use super::admin_server::{AdminServer, read_token, start_admin};
use super::capacity::Capacity;
use super::file_watch::FileWatch;
use super::listen_sockets::ListenSockets;
use super::running_config::RunningConfig;
use super::signals::{SignalAction, Signals};
use super::systemd;
use super::upgrade::{OldProcess, Upgrade};
use super::{reload, worker};

/// What kept it from running.
#[derive(Debug)]
pub struct RunError {
    what: String,
    source: io::Error,
    /// It was about listening: what usually helps there is said.
    is_about_listening: bool,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)?;
        match self.source.kind() {
            _ if !self.is_about_listening => Ok(()),
            io::ErrorKind::AddrInUse => f.write_str(" (another process has it; stop that one, or choose another port)"),
            io::ErrorKind::PermissionDenied => f.write_str(" (ports below 1024 need root or CAP_NET_BIND_SERVICE)"),
            io::ErrorKind::AddrNotAvailable => f.write_str(" (it is not an address of this machine)"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds what was being done to what went wrong.
pub(super) fn doing<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Result<T, RunError> {
    result.map_err(|source| RunError { what: what(), source, is_about_listening: false })
}

/// The same for a bind.
pub(super) fn listening<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Result<T, RunError> {
    doing(result, what).map_err(|error| RunError { is_about_listening: true, ..error })
}

/// A balancer that accepts.
pub struct Running {
    /// Of the admin server, the signals, the drain, health checks and names.
    runtime: LocalRuntime,
    workers: Vec<JoinHandle<()>>,
    server: Server,
}

/// What the main thread looks after.
pub(super) struct Server {
    /// Where the configuration is read again.
    pub(super) source: Source,
    pub(super) checks: Checks,
    pub(super) config: Config,
    pub(super) capacity: Capacity,
    pub(super) running: RunningConfig,
    pub(super) view: Arc<View>,
    /// The admin server's socket, for the next process, and its accept loop.
    admin: Option<AdminServer>,
    drain: Drain,
    signals: Signals,
    commands: UnboundedReceiver<Command>,
    upgrade: Upgrade,
    pub(super) file: FileWatch,
    /// The workers' clocks are as precise as this time limit needs, the shortest when they started.
    pub(super) shortest_limit: Duration,
}

/// How the serving ended.
enum Ending {
    /// Somebody asked for it.
    Requested,
    /// Another process accepts in our place.
    Succeeded,
}

/// Runs until a signal ends it. `source` is what `loaded` was read from, and is read again by a reload.
///
/// # Errors
/// It could not start; nothing was served.
pub fn run(source: Source, checks: Checks, loaded: &Loaded) -> Result<(), RunError> {
    start(source, checks, loaded)?.until_stopped();
    Ok(())
}

/// Binds everything, then starts to accept.
///
/// # Errors
/// What could not be had: an address, a file, a thread.
pub fn start(source: Source, checks: Checks, loaded: &Loaded) -> Result<Running, RunError> {
    let config = &loaded.config;
    start_log(LogSettings { level: level_of(config.log.level), json: config.log.format == LogFormat::Json });
    let runtime = doing(Builder::new_current_thread().enable_all().build_local(LocalOptions::default()), || {
        "can't start the runtime".to_owned()
    })?;
    let (workers, server) = runtime.block_on(set_up(source, checks, loaded))?;
    Ok(Running { runtime, workers, server })
}

async fn set_up(source: Source, checks: Checks, loaded: &Loaded) -> Result<(Vec<JoinHandle<()>>, Server), RunError> {
    let (started, config) = (Instant::now(), &loaded.config);
    // Early: looking up names takes a while, and a change in that time is one.
    let file = FileWatch::new(loaded.file.clone());
    let signals = doing(Signals::new(), || "can't handle signals".to_owned())?;
    let upgrade = Upgrade::new();
    let mut old_process = doing(OldProcess::receive(), || "can't take over the listening sockets".to_owned())?;
    let capacity = Capacity::of_this_process(config.workers);
    let connections = ConnectionLimit::new(capacity.connections(config.max_connections));
    let exporter = Exporter::install().map_err(io::Error::other);
    let exporter = doing(exporter, || "can't start the metrics".to_owned())?;
    let access_log = open_access_log(&config.log)?;
    let (drain, watch) = Drain::new();
    let shortest_limit = shortest_limit(config);
    let (workers, inboxes) = Workers::new(capacity.workers);
    let (new_sockets, worker_configs): (Vec<_>, Vec<_>) = inboxes
        .into_iter()
        .enumerate()
        .map(|(id, inbox)| {
            let (sender, new_sockets) = unbounded_channel();
            let (drain, workers, method) = (watch.clone(), workers.clone(), config.relay);
            (sender, worker::WorkerConfig { id, new_sockets, shortest_limit, drain, workers, inbox, method })
        })
        .unzip();
    let deps =
        ListenerDeps { global_limit: connections.clone(), access_log: access_log.clone(), workers: capacity.workers };
    let mut running = RunningConfig::new(deps, ListenSockets::new(new_sockets, old_process.take_sockets()));
    running.apply(config).await?;
    let (sender, commands) = unbounded_channel();
    let names = match &config.admin.bind {
        Some(BindAddress::Name(host, _)) => Some(host.clone()),
        _ => None,
    };
    let is_local = config.admin.bind.as_ref().is_some_and(BindAddress::is_local);
    let guard = Guard::new(is_local, config.admin.allowed_hosts.iter().cloned().chain(names));
    guard.set_token(read_token(&config.admin)?);
    let view = Arc::new(View {
        started,
        workers: capacity.workers,
        runtimes: OnceLock::new(),
        connections,
        drain: watch,
        shown: ArcSwap::from_pointee(running.shown()),
        access_log,
        exporter,
        config_file: loaded.file.as_ref().map(|file| file.display().to_string()),
        reloads: Reloads::default(),
        guard,
        commands: sender,
    });
    let admin = start_admin(config.admin.bind.as_ref(), &mut running, &view)?;
    running.listen_sockets.close_unclaimed();
    let (workers, runtimes) = worker_configs
        .into_iter()
        .map(|config| doing(worker::start(config), || "can't start a worker".to_owned()))
        .collect::<Result<(Vec<_>, Vec<_>), _>>()?;
    view.runtimes.set(runtimes).expect("nobody else starts workers");
    capacity.log_start(view.connections.max());
    old_process.report_ready();
    systemd::ready();
    let config = config.clone();
    let server = Server {
        source,
        checks,
        config,
        capacity,
        running,
        view,
        admin,
        drain,
        signals,
        commands,
        upgrade,
        file,
        shortest_limit,
    };
    Ok((workers, server))
}

impl Running {
    /// Serves until a signal asks to stop, then drains.
    pub fn until_stopped(mut self) {
        self.runtime.block_on(self.server.serve_and_drain());
        self.stop();
    }

    /// Ends now: connections that live are cut and counted.
    pub fn stop(mut self) {
        self.server.running.listen_sockets.close();
        self.server.drain.advance(Phase::Closing);
        let forced = self.server.view.connections.active();
        self.server.drain.advance(Phase::Over);
        for worker in self.workers {
            // A panic of the worker was reported by the panic hook.
            let _ = worker.join();
        }
        tracing::info!(forced, "stopped");
    }
}

impl Server {
    async fn serve_and_drain(&mut self) {
        let ending = self.serve().await;
        // Whoever asks for something from now on, or has asked and not been heard, is told that it stops.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        let mut grace = self.config.drain.grace;
        match ending {
            Ending::Requested => {
                self.upgrade.cancel();
                systemd::stopping();
            }
            // Whoever connects meets the other process already.
            Ending::Succeeded => grace = Duration::ZERO,
        }
        let Self { drain, running, view, signals, config, .. } = self;
        drain.advance(Phase::Leaving);
        let stop_at_once = async {
            if let Ending::Succeeded = ending {
                // A service manager that stops the service means both processes: this one is stopping already.
                let signal = signals.next_stop().await;
                tracing::info!(signal, "stopping already; a second signal stops at once");
            }
            signals.next_stop().await
        };
        tokio::select! {
            () = leave(drain, &mut running.listen_sockets, grace, config.drain.timeout, &view.connections) => {}
            signal = stop_at_once => tracing::warn!(signal, active = view.connections.active(), "second signal"),
        }
    }

    /// Serves, and does what signals, the API and a changed file ask for.
    async fn serve(&mut self) -> Ending {
        let mut watchdog = systemd::Watchdog::new();
        loop {
            let active = || self.view.connections.active();
            tokio::select! {
                asked = self.signals.next() => match asked {
                    SignalAction::Stop(signal) => {
                        tracing::info!(signal, active = active(), "stopping; a second signal stops at once");
                        return Ending::Requested;
                    }
                    SignalAction::Reload => drop(reload::reload(self).await),
                    SignalAction::ReopenLog => self.reopen_log(),
                    SignalAction::Upgrade => {
                        let admin = self.admin.as_ref().map(|(name, socket, _)| (name.as_str(), &socket[..]));
                        self.upgrade.begin(&self.running.listen_sockets, admin);
                    }
                },
                command = self.commands.recv() => match command {
                    // Whoever asked may be gone.
                    Some(Command::Reload(answer)) => drop(answer.send(reload::reload(self).await)),
                    Some(Command::SetAdminState { pool, backend, admin_state, answer }) => {
                        let _ = answer.send(self.running.set_admin_state(&pool, &backend, admin_state));
                    }
                    Some(Command::Shutdown) | None => {
                        tracing::info!(active = active(), "stopping; a signal stops at once");
                        return Ending::Requested;
                    }
                },
                () = self.file.changed(), if self.config.watch => drop(reload::reload(self).await),
                successor = self.upgrade.ended() => {
                    if successor.is_some() {
                        if let Some((_, _, serving)) = self.admin.take() {
                            serving.abort();
                        }
                        return Ending::Succeeded;
                    }
                }
                () = watchdog.due() => systemd::alive(),
            }
        }
    }

    fn reopen_log(&self) {
        match &self.view.access_log {
            Some(log) => log.reopen(),
            None => tracing::info!("SIGUSR1 opens the access log again, but it is off"),
        }
    }
}

/// The drain: accept for the grace time, then let connections end until the timeout.
async fn leave(
    drain: &Drain,
    listen_sockets: &mut ListenSockets,
    grace: Duration,
    timeout: Duration,
    connections: &ConnectionLimit,
) {
    tokio::time::sleep(grace).await;
    listen_sockets.close();
    drain.advance(Phase::Closing);
    let ended = async {
        // Whoever waited to be accepted counts as well.
        listen_sockets.closed().await;
        connections.emptied().await;
    };
    if tokio::time::timeout(timeout, ended).await.is_err() {
        tracing::warn!(active = connections.active(), "the drain time is over; closing what is left");
    }
}

/// Of all listeners.
pub(super) fn shortest_limit(config: &Config) -> Duration {
    config.listeners.iter().map(config::ListenerConfig::shortest_limit).min().unwrap_or(Duration::MAX)
}

fn open_access_log(settings: &config::LogConfig) -> Result<Option<Arc<AccessLog>>, RunError> {
    let destination = match &settings.access {
        config::AccessLog::Off => return Ok(None),
        config::AccessLog::Stdout => Destination::Stdout,
        config::AccessLog::Stderr => Destination::Stderr,
        config::AccessLog::File(path) => Destination::File(path.clone()),
    };
    let format = if settings.format == LogFormat::Json { Format::Json } else { Format::Text };
    let log = doing(AccessLog::start(&destination, format), || format!("can't open the access log ({destination:?})"))?;
    Ok(Some(Arc::new(log)))
}

fn level_of(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}
