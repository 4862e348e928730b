//! `lb check`: is the configuration valid, and what does it come to?

use clap::Args;
use serde::Serialize;

use crate::config::{Loaded, Problem, Problems};

use super::config_args::ConfigArgs;
use super::environment::print_line;
use super::error::CliError;

#[derive(Args, Clone, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the effective configuration as YAML, after the environment and flags
    #[arg(long)]
    print: bool,
    /// Say it as JSON: {"valid": …, "problems": [{"place", "path", "message"}, …]}; the exit code is the same
    #[arg(long, conflicts_with = "print")]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct CheckReport<'a> {
    valid: bool,
    file: Option<String>,
    problems: &'a [Problem],
}

pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    let loaded = args.config.source().load();
    if args.json {
        return verdict(loaded);
    }
    let loaded = loaded?;
    if args.print {
        print_line(loaded.printed.trim_end());
        return Ok(());
    }
    let name = loaded.file.map_or_else(|| "flags and environment".to_owned(), |file| file.display().to_string());
    let backends: usize = loaded.config.pools.iter().map(|pool| pool.backends.len()).sum();
    print_line(format_args!(
        "{name}: valid; listeners: {}, pools: {}, backends: {backends}",
        loaded.config.listeners.len(),
        loaded.config.pools.len()
    ));
    Ok(())
}

fn verdict(loaded: Result<Loaded, Problems>) -> Result<(), CliError> {
    let (valid, file, problems) = match loaded {
        Ok(loaded) => (true, loaded.file.map(|file| file.display().to_string()), Vec::new()),
        Err(Problems(problems)) => (false, None, problems),
    };
    let verdict = CheckReport { valid, file, problems: &problems };
    print_line(serde_json::to_string_pretty(&verdict).expect("a verdict has text keys only"));
    if valid { Ok(()) } else { Err(CliError::AlreadyReported) }
}
