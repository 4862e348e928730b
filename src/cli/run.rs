//! `lb run`: the balancer itself.

use crate::proxy::CHECKS;
use crate::server;

use super::config_args::ConfigArgs;
use super::error::CliError;

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let source = args.source();
    let loaded = source.load(&CHECKS)?;
    server::run(source, CHECKS, &loaded)?;
    Ok(())
}
