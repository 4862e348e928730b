//! `lb check`: whether the configuration is valid, and what it is after overrides.

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use crate::config::{ListenerConfig, Loaded, Problem, Problems};
use crate::telemetry::rfc3339;

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
    /// Print JSON: {"valid": …, "problems": [{"place", "path", "message"}, …]}; the exit code is the same
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
        return print_json(loaded);
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
    loaded.config.listeners.iter().for_each(tell_expiry);
    Ok(())
}

/// No problem yet, or not one that keeps the balancer from running.
fn tell_expiry(listener: &ListenerConfig) {
    let Some(tls) = &listener.tls else { return };
    let (now, loaded) = (SystemTime::now(), tls.loaded());
    for certificate in loaded.certificates().filter(|it| it.expires_soon(now)) {
        let verb = if certificate.expires <= now { "has expired on" } else { "expires on" };
        let (listener, name, expires) = (&listener.name, &certificate.name, rfc3339(certificate.expires));
        print_line(format_args!("warning: listener {listener}: the certificate {name} {verb} {expires}"));
    }
}

fn print_json(loaded: Result<Loaded, Problems>) -> Result<(), CliError> {
    let (valid, file, problems) = match loaded {
        Ok(loaded) => (true, loaded.file.map(|file| file.display().to_string()), Vec::new()),
        Err(Problems(problems)) => (false, None, problems),
    };
    let report = CheckReport { valid, file, problems: &problems };
    print_line(serde_json::to_string_pretty(&report).expect("a report has text keys only"));
    if valid { Ok(()) } else { Err(CliError::AlreadyReported) }
}
