//! `lb status`: the state of a running balancer, as tables. By its exit code it is a health check that needs no shell.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::admin::{
    BackendReport, EngineReport, ListenerReport, PoolReport, PoolsReport, SpliceReport, StatusReport, TlsReport,
};

use super::admin::{AdminArgs, AdminClient, runtime};
use super::environment::print_line;
use super::error::CliError;

/// The time between two updates of `--watch`.
const PERIOD: Duration = Duration::from_secs(1);
/// Moves to the top left, and clears what is below (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Args, Clone, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print no table, only a message if the exit code is not 0
    #[arg(long, short, conflicts_with_all = ["watch", "json"])]
    quiet: bool,
    /// Show it again each second, until interrupted
    #[arg(long, short, conflicts_with = "json")]
    watch: bool,
    /// Print the API's reports as one JSON object
    #[arg(long)]
    json: bool,
    /// Exit with 1 also when a pool has no usable backend
    #[arg(long, conflicts_with = "watch")]
    strict: bool,
}

/// Both reports, as `--json` prints them.
#[derive(Serialize)]
pub(super) struct Reports {
    pub(super) status: StatusReport,
    #[serde(flatten)]
    pub(super) pools: PoolsReport,
}

pub(super) fn status(args: &StatusArgs) -> Result<(), CliError> {
    let admin = args.admin.admin()?;
    runtime()?.block_on(async {
        if args.watch {
            return watch(&admin).await;
        }
        let reports = fetch_reports(&admin).await?;
        if args.json {
            print_line(serde_json::to_string_pretty(&reports).expect("reports have text keys only"));
        } else if !args.quiet {
            print_line(tables(&reports, None).trim_end());
        }
        if let Some(reason) = reports.status.unready_reason {
            return Err(CliError::NotReady(reason));
        }
        let down: Vec<_> = reports.pools.pools.iter().filter(|pool| pool.is_down()).map(|pool| &*pool.name).collect();
        if args.strict && !down.is_empty() { Err(CliError::PoolsDown(down.join(", "))) } else { Ok(()) }
    })
}

async fn watch(admin: &AdminClient) -> Result<(), CliError> {
    let is_terminal = io::stdout().is_terminal();
    let mut before: Option<Reports> = None;
    loop {
        let shown = match fetch_reports(admin).await {
            Ok(now) => {
                let tables = tables(&now, before.as_ref());
                before = Some(now);
                tables
            }
            // Shown in place of the tables until the balancer answers again.
            Err(error) => format!("{error}\n"),
        };
        let written = writeln!(io::stdout(), "{}{shown}", if is_terminal { CLEAR } else { "" });
        // The reader of the output has gone.
        if written.and_then(|()| io::stdout().flush()).is_err() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

pub(super) async fn fetch_reports(admin: &AdminClient) -> Result<Reports, CliError> {
    Ok(Reports { status: admin.report("/api/v1/status").await?, pools: admin.report("/api/v1/pools").await? })
}

/// `before` are the reports of a second ago, for rates.
fn tables(reports: &Reports, before: Option<&Reports>) -> String {
    let status = &reports.status;
    let state = if status.draining { ", draining" } else { "" };
    let mut text = format!(
        "lb {}: up {}, {} workers, {} of {} connections{state}\n",
        status.version,
        uptime(status.uptime_seconds),
        status.workers,
        status.connections.active,
        status.connections.max
    );
    text += &engine_line(&status.engine);
    text += &splice_line(&status.splice);
    if let Some(reload) = &status.last_reload {
        text += &format!("last reload {} ({}): {}\n", reload.time, reload.result, reload.message);
    }
    if !status.former_processes.is_empty() {
        let pids: Vec<_> = status.former_processes.iter().map(i32::to_string).collect();
        text += &format!("former processes with connections (kill PID ends one): {}\n", pids.join(" "));
    }
    text += &format!(
        "\n{:<12} {:<24} {:<6} {:>8} {:>9} {:>8} {:>10} {:>10}\n",
        "LISTENER", "ADDRESS", "POOL", "ACTIVE", "ACCEPTED", "REFUSED", "IN", "OUT"
    );
    for listener in &status.listeners {
        text += &listener_row(listener);
    }
    let rate = if before.is_some() { "RATE/s" } else { "" };
    text += &format!(
        "\n{:<12} {:<24} {:<9} {:>4} {:>6} {:>7} {:>10} {:>9} {:>11} {rate:>7}\n",
        "POOL", "BACKEND", "STATE", "RANK", "WEIGHT", "ACTIVE", "TOTAL", "FAILURES", "CONNECT ms"
    );
    for pool in &reports.pools.pools {
        let mut backends: Vec<_> = pool.backends.iter().collect();
        // Bad first: in a long list they would be missed.
        backends.sort_by_key(|backend| backend.state == "up");
        for backend in backends {
            text += &backend_row(pool, backend, before);
        }
        if pool.backends.is_empty() {
            text +=
                &format!("{:<12} {:<24} its names gave no address, or only removed ones\n", pool.name, "no backend");
        }
        for unresolved in &pool.unresolved {
            text += &format!("{:<12} {:<24} not resolved: {}\n", pool.name, unresolved.name, unresolved.error);
        }
    }
    for ListenerReport { name, tls, .. } in &status.listeners {
        text += &tls.as_ref().map(|tls| tls_lines(name, tls)).unwrap_or_default();
    }
    reports.pools.pools.iter().for_each(|pool| text += &pool_lines(pool));
    text
}

/// What its clients meet.
fn pool_lines(PoolReport { name, service, outage_since, failed, failures, .. }: &PoolReport) -> String {
    let service = match service.as_str() {
        "refused" => Some("no backend may be used, clients are refused"),
        "all_tried" => Some("no backend passes its health check, all are tried"),
        "ejected_tried" => Some("no backend is usable, those that have failed are tried"),
        _ => None,
    };
    let since = outage_since.as_ref().map_or(String::new(), |since| format!(" (since {since})"));
    let mut text = service.map_or(String::new(), |service| format!("\npool {name}: {service}{since}\n"));
    if *failed > 0 {
        let reasons: Vec<_> = failures.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        text += &format!("\npool {name}: {failed} clients were not served: {}\n", reasons.join(", "));
    }
    text
}

/// In whole seconds, minutes, hours and days.
pub(super) fn uptime(seconds: f64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs()))
}

fn engine_line(engine: &EngineReport) -> String {
    let EngineReport { name, reason, rings } = engine;
    let rings = if name == "io_uring" { format!(", on {rings} workers") } else { String::new() };
    format!("small sends: {name} ({reason}){rings}\n")
}

/// What needs attention.
fn tls_lines(listener: &str, tls: &TlsReport) -> String {
    let mut text = String::new();
    for certificate in tls.certificates.iter().filter(|it| it.expires_soon) {
        text += &format!("\nlistener {listener}: certificate {} expires {}\n", certificate.name, certificate.expires);
    }
    if let Some(problem) = &tls.problem {
        text += &format!("\nlistener {listener}: {problem}; what the files held before stays in use\n");
    }
    text
}

fn splice_line(splice: &SpliceReport) -> String {
    let SpliceReport { pipes, refused, pipe_bytes, spliced_bytes } = splice;
    let refused = if *refused > 0 { format!(", {refused} refused by the system") } else { String::new() };
    let (size, spliced) = (bytes(*pipe_bytes as u64), bytes(*spliced_bytes));
    format!("splice: {pipes} pipes of {size} in all{refused}; {spliced} moved\n")
}

fn listener_row(listener: &ListenerReport) -> String {
    let ListenerReport { name, addresses, pool, active, accepted, rejected, bytes_in, bytes_out, .. } = listener;
    let (addresses, pool) = (addresses.join(","), pool.as_deref().unwrap_or("-"));
    let (to_backend, to_client) = (bytes(*bytes_in), bytes(*bytes_out));
    format!(
        "{name:<12} {addresses:<24} {pool:<6} {active:>8} {accepted:>9} {rejected:>8} {to_backend:>10} \
         {to_client:>10}\n"
    )
}

fn backend_row(pool: &PoolReport, backend: &BackendReport, before: Option<&Reports>) -> String {
    let BackendReport { address, weight, rank, state, active, total, failures, latency, reason, last_error, .. } =
        backend;
    let latency = latency.map_or_else(|| "-".to_owned(), |latency| format!("{latency:.2}"));
    let rate = before.map_or(String::new(), |before| {
        let pools = before.pools.pools.iter().filter(|known| known.name == pool.name);
        let known = pools.flat_map(|pool| &pool.backends).find(|known| known.address == *address);
        total.saturating_sub(known.map_or(0, |known| known.total)).to_string()
    });
    let why = match reason.as_ref().or(last_error.as_ref()) {
        Some(why) if state != "up" => format!("  {why}"),
        _ => String::new(),
    };
    format!(
        "{:<12} {address:<24} {state:<9} {rank:>4} {weight:>6} {active:>7} {total:>10} {failures:>9} {latency:>11} \
         {rate:>7}{why}\n",
        pool.name
    )
}

/// In the largest unit that leaves a whole number.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut scaled, mut unit) = (count as f64, 0);
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{scaled:.1} {}", UNITS[unit]) }
}
