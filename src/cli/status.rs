//! `lb status`: a running balancer, as a table. Its exit code makes it a health check that needs no shell.

use clap::Args;
use tokio::runtime::Builder;

use crate::admin::{BackendReport, PoolsReport, StatusReport};

use super::{CliError, client, variable};

const DEFAULT_ADMIN: &str = "127.0.0.1:9900";

#[derive(Args, Clone, Debug)]
pub(super) struct StatusArgs {
    /// The balancer's admin address: host:port or unix:/path [env: LB_ADMIN] [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Print no table: the exit code tells, and a message where it is not 0
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn status(args: &StatusArgs) -> Result<(), CliError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("can't start the runtime: {error}")))?;
    let admin = admin_address(args.admin.clone())?;
    runtime.block_on(async {
        let status: StatusReport = ask(&admin, "/api/v1/status").await?;
        if !args.quiet {
            let pools: PoolsReport = ask(&admin, "/api/v1/pools").await?;
            print!("{}", table(&status, &pools));
        }
        let (ready, body) = get(&admin, "/readyz").await?;
        if ready.is_success() {
            return Ok(());
        }
        Err(CliError::Failed(format!("not ready: {}", String::from_utf8_lossy(&body).trim_end())))
    })
}

/// The address to ask: the flag's, the variable's that the balancer itself reads, or the default.
fn admin_address(flag: Option<String>) -> Result<String, CliError> {
    let address = flag.or_else(|| variable("LB_ADMIN")).unwrap_or_else(|| DEFAULT_ADMIN.to_owned());
    if address == "off" {
        return Err(CliError::Failed(
            "the admin server is off (LB_ADMIN or --admin says so): nothing to ask".to_owned(),
        ));
    }
    Ok(address.strip_prefix("*:").map_or_else(|| address.clone(), |port| format!("127.0.0.1:{port}")))
}

async fn ask<T: serde::de::DeserializeOwned>(admin: &str, path: &str) -> Result<T, CliError> {
    let (_, body) = get(admin, path).await?;
    serde_json::from_slice(&body)
        .map_err(|error| CliError::Failed(format!("{admin}{path} answered no report: {error}")))
}

async fn get(admin: &str, path: &str) -> Result<(hyper::StatusCode, hyper::body::Bytes), CliError> {
    client::get(admin, path).await.map_err(|error| {
        CliError::Failed(format!(
            "no answer from the admin server at {admin}: {error} (is lb running? --admin ADDR says where)"
        ))
    })
}

fn table(status: &StatusReport, pools: &PoolsReport) -> String {
    let StatusReport { version, uptime_seconds, workers, connections, draining } = status;
    let state = if *draining { ", draining" } else { "" };
    let mut table = format!(
        "lb {version}: up {uptime_seconds:.0} s, {workers} workers, {} of {} connections{state}\n\n\
         {:<12} {:<24} {:<9} {:>6} {:>7} {:>10} {:>9} {:>11}\n",
        connections.active,
        connections.max,
        "POOL",
        "BACKEND",
        "STATE",
        "WEIGHT",
        "ACTIVE",
        "TOTAL",
        "FAILURES",
        "CONNECT ms"
    );
    for pool in &pools.pools {
        for BackendReport { address, weight, backup, state, active, total, failures, latency, .. } in &pool.backends {
            let weight = format!("{weight}{}", if *backup { "b" } else { "" });
            let latency = latency.map_or_else(|| "-".to_owned(), |latency| format!("{latency:.2}"));
            table += &format!(
                "{:<12} {address:<24} {state:<9} {weight:>6} {active:>7} {total:>10} {failures:>9} {latency:>11}\n",
                pool.name
            );
        }
    }
    table
}
