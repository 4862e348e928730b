//! `lb run`: the balancer itself.

use crate::server;

use super::{CliError, ConfigArgs};

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let loaded = args.source().load()?;
    server::run(&loaded.config)?;
    Ok(())
}
