//! `lb run`: the balancer itself.

use crate::server;

use super::config_args::ConfigArgs;
use super::error::CliError;

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let ended = serve(args);
    if let Err(error) = &ended {
        server::tell_old_process(&error.to_string());
    }
    ended
}

fn serve(args: &ConfigArgs) -> Result<(), CliError> {
    let source = args.source();
    let loaded = source.load()?;
    server::run(source, &loaded)?;
    Ok(())
}
