//! `lb reload`, `lb upgrade`, `lb stop`: what signals do, with an answer.

use std::time::Duration;

use clap::Args;
use hyper::Method;

use crate::admin::{ReloadAnswer, StatusReport, UpgradeReport};

use super::admin::{AdminArgs, AdminClient, runtime};
use super::client::Ask;
use super::environment::print_line;
use super::error::CliError;

/// The new process has 30 s to accept.
const UPGRADE_TIME: Duration = Duration::from_secs(40);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args, Clone, Debug)]
pub(super) struct ReloadArgs {
    /// Only say what would change, key by key, and what stands in the way; the balancer goes on as it is
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct StopArgs {
    /// Wait until its process answers no more: its connections have ended, or the drain timeout is over
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn reload(args: &ReloadArgs) -> Result<(), CliError> {
    let path = if args.dry_run { "/api/v1/reload?dry_run=true" } else { "/api/v1/reload" };
    let answer: ReloadAnswer = runtime()?.block_on(args.admin.admin()?.order(Ask::new(Method::POST, path)))?;
    print_line(answer.result);
    answer.changes.iter().for_each(|change| print_line(format_args!("  {change}")));
    if answer.more > 0 {
        print_line(format_args!("  and {} more", answer.more));
    }
    Ok(())
}

pub(super) fn upgrade(args: &UpgradeArgs) -> Result<(), CliError> {
    let order = Ask::new(Method::POST, "/api/v1/upgrade").that_waits(UPGRADE_TIME);
    let UpgradeReport { result, .. } = runtime()?.block_on(args.admin.admin()?.order(order))?;
    print_line(result);
    Ok(())
}

pub(super) fn stop(args: &StopArgs) -> Result<(), CliError> {
    let admin = args.admin.admin()?;
    runtime()?.block_on(async {
        let StatusReport { pid, .. } = admin.report("/api/v1/status").await?;
        let result = admin.change("/api/v1/shutdown").await?;
        if !args.wait {
            print_line(format_args!("process {pid}: {result}"));
            return Ok(());
        }
        while is_there(&admin, pid).await {
            tokio::time::sleep(LOOK).await;
        }
        print_line(format_args!("process {pid}: stopped"));
        Ok(())
    })
}

/// Whether that process answers, and no other in its place.
async fn is_there(admin: &AdminClient, pid: u32) -> bool {
    admin.report::<StatusReport>("/api/v1/status").await.is_ok_and(|status| status.pid == pid)
}
