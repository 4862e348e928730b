//! `lb run`: the balancer itself.

use crate::proxy::check_header;
use crate::server;

use super::{CliError, ConfigArgs};

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let loaded = args.source().load(check_header)?;
    server::run(&loaded.config)?;
    Ok(())
}
