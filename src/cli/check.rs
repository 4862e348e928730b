//! `lb check`: is the configuration valid, and what does it come to?

use clap::Args;

use crate::proxy::CHECKS;

use super::{CliError, ConfigArgs};

#[derive(Args, Clone, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the effective configuration as YAML, after the environment and flags
    #[arg(long)]
    print: bool,
}

pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    let loaded = args.config.source().load(&CHECKS)?;
    if args.print {
        print!("{}", loaded.printed);
        return Ok(());
    }
    let name = loaded.file.map_or_else(|| "flags and environment".to_owned(), |file| file.display().to_string());
    let backends: usize = loaded.config.pools.iter().map(|pool| pool.backends.len()).sum();
    println!(
        "{name}: valid; listeners: {}, pools: {}, backends: {backends}",
        loaded.config.listeners.len(),
        loaded.config.pools.len()
    );
    Ok(())
}
