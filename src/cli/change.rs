//! `lb backend` and `lb reload`: changes of a running balancer.

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::admin::{AdminArgs, runtime};
use super::environment::print_line;
use super::error::CliError;

#[derive(Args, Clone, Debug)]
pub(super) struct BackendArgs {
    #[command(subcommand)]
    change: Change,
}

#[derive(Clone, Debug, Subcommand)]
enum Change {
    /// Give it no new connections; those that live go on, and it is watched further
    Drain(Which),
    /// Take it out of service: no new connections, whatever its health checks say
    Disable(Which),
    /// Let it serve again
    Enable(Which),
}

#[derive(Args, Clone, Debug)]
struct Which {
    /// The pool's name (`default` in the short form)
    pool: String,
    /// The backend's address, as `lb status` shows it
    address: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn backend(args: &BackendArgs) -> Result<(), CliError> {
    let (verb, Which { pool, address, admin }) = match &args.change {
        Change::Drain(which) => ("drain", which),
        Change::Disable(which) => ("disable", which),
        Change::Enable(which) => ("enable", which),
    };
    let segment = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let path = format!("/api/v1/pools/{}/backends/{}/{verb}", segment(pool), segment(address));
    let state = runtime()?.block_on(admin.admin()?.change(&path))?;
    print_line(format_args!("{pool} {address}: {state}"));
    Ok(())
}

pub(super) fn reload(args: &ReloadArgs) -> Result<(), CliError> {
    print_line(runtime()?.block_on(args.admin.admin()?.change("/api/v1/reload"))?);
    Ok(())
}
