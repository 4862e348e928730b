//! `lb backend` and `lb reload`: changes of a running balancer.

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::admin::{AdminArgs, runtime};
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
    Drain(BackendRef),
    /// Take it out of service: no new connections, whatever its health checks say
    Disable(BackendRef),
    /// Let it serve again
    Enable(BackendRef),
}

#[derive(Args, Clone, Debug)]
struct BackendRef {
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
    let (verb, BackendRef { pool, address, admin }) = match &args.change {
        BackendChange::Drain(backend) => ("drain", backend),
        BackendChange::Disable(backend) => ("disable", backend),
        BackendChange::Enable(backend) => ("enable", backend),
    };
    let [pool_segment, address_segment] = [pool, address].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
    let path = format!("/api/v1/pools/{pool_segment}/backends/{address_segment}/{verb}");
    let state = runtime()?.block_on(admin.admin()?.change(&path))?;
    print_line(format_args!("{pool} {address}: {state}"));
    Ok(())
}

pub(super) fn reload(args: &ReloadArgs) -> Result<(), CliError> {
    print_line(runtime()?.block_on(args.admin.admin()?.change("/api/v1/reload"))?);
    Ok(())
}
