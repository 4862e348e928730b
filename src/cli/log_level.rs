//! `lb log-level`: how much a running balancer's log shows.

use clap::Args;
use clap::builder::PossibleValuesParser;
use hyper::Method;
use serde_json::json;

use crate::admin::LogReport;
use crate::telemetry::LEVELS;

use super::admin::{AdminArgs, runtime};
use super::client::Ask;
use super::environment::print_line;
use super::error::CliError;

#[derive(Args, Clone, Debug)]
pub(super) struct LogLevelArgs {
    /// The least severe level to show, until a reload returns to the configuration's; without it, tells what it is
    #[arg(value_parser = PossibleValuesParser::new(LEVELS.map(|(name, _)| name)))]
    level: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn log_level(args: &LogLevelArgs) -> Result<(), CliError> {
    const PATH: &str = "/api/v1/log";
    let admin = args.admin.admin()?;
    let report: LogReport = runtime()?.block_on(async {
        match &args.level {
            Some(level) => {
                let body = json!({ "level": level }).to_string();
                admin.order(Ask { body, ..Ask::new(Method::PATCH, PATH) }).await
            }
            None => admin.report(PATH).await,
        }
    })?;
    let LogReport { level, configured } = report;
    if level == configured {
        print_line(format_args!("{level}, as configured"));
    } else {
        print_line(format_args!("{level}, until a reload returns to {configured}, as configured"));
    }
    Ok(())
}
