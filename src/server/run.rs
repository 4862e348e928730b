//! Start, run, stop.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::access_log::{AccessLog, Destination, Format};
use crate::admin::{self, Exporter, View};
use crate::backends::{Discovery, Pool, watch_health};
use crate::balancer::Balancer;
use crate::config::{self, BindAddress, Config, LogFormat, LogLevel, RelayMode};
use crate::lifecycle::{ConnectionLimit, Drain, DrainWatch, Phase};
use crate::net::{self, ListenAddress, ListenOptions};
use crate::proxy::{Crew, Service};
use crate::relay::Method;
use crate::telemetry::{ListenerStats, LogSettings, start_log};

use super::signals::StopSignals;
use super::{limits, worker};

/// The start waits this long for the names of backends.
const FIRST_RESOLVE: Duration = Duration::from_secs(1);

/// What kept it from running.
#[derive(Debug)]
pub struct RunError {
    what: String,
    source: io::Error,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)?;
        match self.source.kind() {
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
fn doing<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Result<T, RunError> {
    result.map_err(|source| RunError { what: what(), source })
}

/// A balancer that accepts.
pub struct Running {
    /// Of the admin server, the signals and the drain.
    runtime: LocalRuntime,
    workers: Vec<JoinHandle<()>>,
    drain: Drain,
    timing: config::Drain,
    connections: Arc<ConnectionLimit>,
    /// One permit for each socket that is accepted from.
    accepting: Arc<ConnectionLimit>,
    signals: StopSignals,
}

/// Runs until a signal ends it.
///
/// # Errors
/// It could not start; nothing was served.
pub fn run(config: &Config) -> Result<(), RunError> {
    start(config)?.until_stopped();
    Ok(())
}

/// Binds everything, then starts to accept.
///
/// # Errors
/// What could not be had: an address, a file, a thread.
pub fn start(config: &Config) -> Result<Running, RunError> {
    let started = Instant::now();
    start_log(LogSettings { level: level_of(config.log.level), json: config.log.format == LogFormat::Json });
    let open_files = net::raise_open_file_limit();
    let workers = limits::workers(config.workers);
    let fitting = limits::max_connections(open_files, workers);
    let max = config.max_connections.map_or(fitting, std::num::NonZeroUsize::get);
    if max > fitting {
        tracing::warn!(
            max_connections = max,
            fitting,
            open_files,
            "more connections than open files allow; raise `ulimit -n`"
        );
    }
    let connections = ConnectionLimit::new(max);
    let runtime = doing(Builder::new_current_thread().enable_all().build_local(LocalOptions::default()), || {
        "can't start the runtime".to_owned()
    })?;
    let _entered = runtime.enter();
    let signals = doing(StopSignals::new(), || "can't handle signals".to_owned())?;
    let exporter = Exporter::install()
        .map_err(|error| RunError { what: "can't start the metrics".to_owned(), source: io::Error::other(error) })?;
    let access_log = open_access_log(&config.log)?;
    let pools: Vec<Arc<Pool>> = config.pools.iter().map(|pool| Pool::new(pool.clone(), workers, started)).collect();
    start_watching(&runtime, &pools);
    let (drain, watch) = Drain::new();
    let (listeners, jobs, accepting) =
        bind_listeners(config, &pools, &connections, access_log.as_ref(), workers, &watch)?;
    let view = View {
        started,
        workers,
        connections: connections.clone(),
        drain: watch,
        listeners,
        pools,
        access_log,
        exporter,
    };
    start_admin(&runtime, config.admin.as_ref(), Arc::new(view))?;
    let workers = jobs
        .into_iter()
        .map(|job| doing(worker::start(job), || "can't start a worker".to_owned()))
        .collect::<Result<Vec<_>, _>>()?;
    tracing::info!(workers = workers.len(), max_connections = max, open_files, "accepting connections");
    Ok(Running { timing: config.drain, workers, drain, connections, accepting, signals, runtime })
}

impl Running {
    /// Serves until a signal asks to stop, then drains.
    pub fn until_stopped(mut self) {
        let Self { runtime, drain, timing, connections, accepting, signals, .. } = &mut self;
        runtime.block_on(async {
            let signal = signals.next().await;
            tracing::info!(signal, active = connections.active(), "stopping; a second signal stops at once");
            drain.advance(Phase::Leaving);
            tokio::select! {
                () = leave(drain, *timing, accepting, connections) => {}
                signal = signals.next() => tracing::warn!(signal, active = connections.active(), "second signal"),
            }
        });
        self.stop();
    }

    /// Ends now: connections that live are cut and counted.
    pub fn stop(self) {
        self.drain.advance(Phase::Closing);
        let forced = self.connections.active();
        self.drain.advance(Phase::Over);
        for worker in self.workers {
            // A panic of the worker was reported by the panic hook.
            let _ = worker.join();
        }
        tracing::info!(forced, "stopped");
    }
}

/// The drain: accept for the grace time, then let connections end until the timeout.
async fn leave(drain: &Drain, timing: config::Drain, accepting: &ConnectionLimit, connections: &ConnectionLimit) {
    tokio::time::sleep(timing.grace).await;
    drain.advance(Phase::Closing);
    let ended = async {
        // Whoever waited to be accepted counts as well.
        accepting.emptied().await;
        connections.emptied().await;
    };
    if tokio::time::timeout(timing.timeout, ended).await.is_err() {
        tracing::warn!(active = connections.active(), "the drain time is over; closing what is left");
    }
}

type Bound = (Vec<Arc<ListenerStats>>, Vec<worker::Job>, Arc<ConnectionLimit>);

/// Binds every listener once for each worker.
fn bind_listeners(
    config: &Config,
    pools: &[Arc<Pool>],
    connections: &Arc<ConnectionLimit>,
    access_log: Option<&Arc<AccessLog>>,
    workers: usize,
    drain: &DrainWatch,
) -> Result<Bound, RunError> {
    let balancers: Vec<Arc<Balancer>> = pools.iter().map(|pool| Balancer::new(pool.clone())).collect();
    let limits = config.listeners.iter().map(config::Listener::shortest_limit);
    let shortest_limit = limits.min().unwrap_or(Duration::MAX);
    let mut listeners = Vec::new();
    let (crew, inboxes) = Crew::new(workers);
    let accepting = ConnectionLimit::new(usize::MAX);
    let method = method_of(config.relay);
    let job = |(id, inbox)| {
        let (drain, crew) = (drain.clone(), crew.clone());
        worker::Job { id, sockets: Vec::new(), shortest_limit, drain, crew, inbox, method }
    };
    let mut jobs: Vec<worker::Job> = inboxes.into_iter().enumerate().map(job).collect();
    for listener in &config.listeners {
        let balancer = balancers
            .iter()
            .find(|balancer| balancer.pool().name() == listener.pool)
            .expect("a valid configuration has every listener's pool")
            .clone();
        let tcp = &balancer.pool().settings().tcp;
        let options = ListenOptions { nodelay: tcp.nodelay, keepalive: tcp.keepalive, user_timeout: tcp.user_timeout };
        let service = Service::new(listener, balancer.clone(), connections.clone(), access_log.cloned(), workers);
        for address in &listener.bind {
            let sockets = doing(net::bind(&listen_address(address), &options, workers), || {
                format!("can't listen on {address} (listener `{}`)", listener.name)
            })?;
            let local = sockets.first().map(net::local_address);
            tracing::info!(listener = listener.name, address = local, pool = listener.pool, "listening");
            for (job, socket) in jobs.iter_mut().zip(sockets) {
                let accepting = accepting.try_acquire().expect("there is no limit of listening sockets");
                job.sockets.push((service.clone(), socket, accepting));
            }
        }
        listeners.push(service.stats().clone());
    }
    Ok((listeners, jobs, accepting))
}

fn start_admin(runtime: &LocalRuntime, address: Option<&BindAddress>, view: Arc<View>) -> Result<(), RunError> {
    if let Some(address) = address {
        let listener = doing(admin::bind(&listen_address(address)), || {
            format!("can't listen on {address} for the admin server (choose another with --admin, or --admin off)")
        })?;
        tracing::info!(address = listener.local_address(), "admin server listening");
        drop(runtime.spawn_local(admin::serve(listener, view.clone())));
    }
    drop(runtime.spawn_local(admin::upkeep(view)));
    Ok(())
}

/// Finds the pools' backends, and has an eye on them.
fn start_watching(runtime: &LocalRuntime, pools: &[Arc<Pool>]) {
    for pool in pools {
        let mut discovery = Discovery::new(pool.clone());
        if discovery.has_names() {
            // A name that doesn't resolve mustn't keep the rest from starting.
            let first = async { tokio::time::timeout(FIRST_RESOLVE, discovery.look_once()).await };
            if let Ok(Err(error)) = runtime.block_on(first) {
                tracing::warn!(pool = pool.name(), %error, "names can't be resolved yet");
            }
            drop(runtime.spawn_local(discovery.keep_looking()));
        }
        if let Some(settings) = pool.settings().health_check.clone() {
            drop(runtime.spawn_local(watch_health(pool.clone(), settings)));
        }
    }
}

fn open_access_log(settings: &config::Log) -> Result<Option<Arc<AccessLog>>, RunError> {
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

fn listen_address(address: &BindAddress) -> ListenAddress {
    match address {
        BindAddress::Tcp(address) => ListenAddress::Tcp(*address),
        BindAddress::Any(port) => ListenAddress::Any(*port),
        BindAddress::Unix(path) => ListenAddress::Unix(path.clone()),
    }
}

fn method_of(mode: RelayMode) -> Method {
    match mode {
        RelayMode::Auto => Method::Auto,
        RelayMode::Copy => Method::Copy,
        RelayMode::Splice => Method::Splice,
    }
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
