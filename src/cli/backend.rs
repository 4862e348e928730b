//! `lb backend`: backends of a running balancer, added, changed, drained and removed.

use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::admin::{DrainReport, MembersReport};
use crate::config::duration;

use super::admin::{AdminArgs, AdminClient, runtime};
use super::client::Ask;
use super::environment::print_line;
use super::error::CliError;

#[derive(Args, Clone, Debug)]
pub(super) struct BackendArgs {
    #[command(subcommand)]
    change: BackendChange,
}

#[derive(Clone, Debug, Subcommand)]
enum BackendChange {
    /// Give it no new connections; open ones stay open, and its failures and health are still tracked
    Drain(DrainArgs),
    /// Take it out of service: no new connections, whatever its health checks say
    Disable(DrainArgs),
    /// Let it serve again
    Enable(BackendRef),
    /// Add one to a pool, by the rules of the configuration; a restart forgets it
    Add(AddArgs),
    /// Remove one from its pool: it drains first; a restart forgets it
    Remove(RemoveArgs),
    /// Change its share of new connections; a restart forgets it
    Weight(WeightArgs),
    /// Change how many connections it may have at once; a restart forgets it
    MaxConnections(LimitArgs),
}

#[derive(Args, Clone, Debug)]
struct BackendRef {
    /// The pool's name (`default` in the short form), or '*' for all pools
    pool: String,
    /// The backend's address as `lb status` shows it, an entry of the configuration, or a host without a port for all
    /// backends there
    address: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Clone, Debug)]
struct DrainArgs {
    #[command(flatten)]
    backend: BackendRef,
    /// Wait until its connections have ended, for this long at most: 30s, 5m. Exit code 1 if some are left then
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
}

#[derive(Args, Clone, Debug)]
struct AddArgs {
    #[command(flatten)]
    backend: BackendRef,
    /// Its share of new connections, 0 to 256
    #[arg(long, value_name = "N", default_value = "1")]
    weight: u16,
    /// Use it only when no backend of a lower rank is usable; a rank from 1 to 100
    #[arg(long, value_name = "RANK", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    backup: Option<u8>,
    /// Connections at once; 0: any number
    #[arg(long, value_name = "N", default_value = "0")]
    max_connections: usize,
    /// Where its health check goes
    #[arg(long, value_name = "ADDR")]
    check: Option<String>,
}

#[derive(Args, Clone, Debug)]
struct RemoveArgs {
    #[command(flatten)]
    backend: BackendRef,
    /// Remove it after this time at the latest, and wait for that: 30s, 5m. What is open then stays open
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "force")]
    wait: Option<Duration>,
    /// Remove it at once, and reset its connections
    #[arg(long)]
    force: bool,
}

#[derive(Args, Clone, Debug)]
struct WeightArgs {
    #[command(flatten)]
    backend: BackendRef,
    /// 0 to 256; 0 takes no new connections
    weight: u16,
}

#[derive(Args, Clone, Debug)]
struct LimitArgs {
    #[command(flatten)]
    backend: BackendRef,
    /// 0: any number
    max_connections: usize,
}

pub(super) fn backend(args: &BackendArgs) -> Result<(), CliError> {
    match &args.change {
        BackendChange::Drain(args) => args.order("drain"),
        BackendChange::Disable(args) => args.order("disable"),
        BackendChange::Enable(backend) => {
            let path = backend.path("/enable");
            backend.say(&backend.asked(async |admin| admin.change(&path).await)?);
            Ok(())
        }
        BackendChange::Add(args) => args.order(),
        BackendChange::Remove(args) => args.order(),
        BackendChange::Weight(WeightArgs { backend, weight }) => backend.patch(&json!({ "weight": weight })),
        BackendChange::MaxConnections(LimitArgs { backend, max_connections }) => {
            backend.patch(&json!({ "max_connections": max_connections }))
        }
    }
}

impl BackendRef {
    fn path(&self, rest: &str) -> String {
        let [pool, address] = [&self.pool, &self.address].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        format!("/api/v1/pools/{pool}/backends/{address}{rest}")
    }

    fn asked<T>(&self, ask: impl AsyncFnOnce(&AdminClient) -> Result<T, CliError>) -> Result<T, CliError> {
        let admin = self.admin.admin()?;
        runtime()?.block_on(ask(&admin))
    }

    fn patch(&self, changes: &serde_json::Value) -> Result<(), CliError> {
        let path = self.path("");
        let order = Ask { body: changes.to_string(), ..Ask::new(Method::PATCH, &path) };
        let MembersReport { result, .. } = self.asked(async |admin| admin.order(order).await)?;
        self.say(&result);
        Ok(())
    }

    fn say(&self, result: &str) {
        print_line(format_args!("{} {}: {result}", self.pool, self.address));
    }
}

impl DrainArgs {
    fn order(&self, verb: &str) -> Result<(), CliError> {
        let Self { backend, wait } = self;
        let path = backend.path(&format!("/{verb}{}", query(*wait)));
        let Some(wait) = *wait else {
            backend.say(&backend.asked(async |admin| admin.change(&path).await)?);
            return Ok(());
        };
        let order = Ask::new(Method::POST, &path).that_waits(wait);
        let DrainReport { result, active } = backend.asked(async |admin| admin.order(order).await)?;
        if active > 0 {
            return Err(CliError::StillOpen { backend: format!("{} {}", backend.pool, backend.address), active });
        }
        backend.say(&result);
        Ok(())
    }
}

impl AddArgs {
    fn order(&self) -> Result<(), CliError> {
        let Self { backend, weight, backup, max_connections, check } = self;
        let mut entry = json!({ "address": backend.address, "weight": weight, "max_connections": max_connections });
        if let Some(rank) = backup {
            entry["backup"] = (*rank).into();
        }
        if let Some(check) = check {
            entry["check"] = check.as_str().into();
        }
        let path = format!("/api/v1/pools/{}/backends", utf8_percent_encode(&backend.pool, NON_ALPHANUMERIC));
        let order = Ask { body: entry.to_string(), ..Ask::new(Method::POST, &path) };
        let MembersReport { result, .. } = backend.asked(async |admin| admin.order(order).await)?;
        backend.say(&result);
        Ok(())
    }
}

impl RemoveArgs {
    fn order(&self) -> Result<(), CliError> {
        let Self { backend, wait, force } = self;
        let path = backend.path(if *force { "?force=true".to_owned() } else { query(*wait) }.as_str());
        let order = Ask::new(Method::DELETE, &path).that_waits(wait.unwrap_or_default());
        let DrainReport { result, active } = backend.asked(async |admin| admin.order(order).await)?;
        let open = match active {
            0 => String::new(),
            _ => format!(" ({active} open)"),
        };
        backend.say(&format!("{result}{open}"));
        Ok(())
    }
}

fn query(wait: Option<Duration>) -> String {
    wait.map_or(String::new(), |wait| format!("?wait={}ms", wait.as_millis()))
}
