//! `lb run`: the balancer itself.

use crate::server;

use super::config_args::ConfigArgs;
use super::error::CliError;

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let source = args.source();
    let loaded = source.load()?;
    server::run(source, &loaded)?;
    Ok(())
}
