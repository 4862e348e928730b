//! `lb check`: whether the configuration is valid, and what it is after overrides.

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use crate::config::{ListenerConfig, Loaded, Problem, Problems};
use crate::server::inspect;
use crate::telemetry::rfc3339;
use crate::tls::Certificate;

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
    /// Look at what a start would meet on this machine, too: token, logs, addresses that are taken, names,
    /// certificates; exit code 1 where something stands in its way. Takes some seconds at most
    #[arg(long)]
    deep: bool,
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
    /// What is valid, and yet surely not meant, or will not be for long.
    warnings: &'a [String],
}

pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    let source = args.config.source();
    let loaded = source.load();
    let found = match &loaded {
        Ok(loaded) if args.deep => source.located(inspect(&loaded.config).map_err(CliError::Runtime)?)?,
        _ => Vec::new(),
    };
    if args.json {
        return print_json(loaded, found);
    }
    let loaded = loaded?;
    if !found.is_empty() {
        return Err(CliError::InTheWay(Problems(found)));
    }
    if args.print {
        print_line(loaded.printed().trim_end());
        return Ok(());
    }
    let warnings = warnings_of(&loaded);
    let name = loaded.file.map_or_else(|| "flags and environment".to_owned(), |file| file.display().to_string());
    let backends: usize = loaded.config.pools.iter().map(|pool| pool.backends.len()).sum();
    print_line(format_args!(
        "{name}: valid; listeners: {}, pools: {}, backends: {backends}",
        loaded.config.listeners.len(),
        loaded.config.pools.len()
    ));
    for warning in warnings {
        print_line(format_args!("warning: {warning}"));
    }
    Ok(())
}

/// What keeps no balancer from running.
fn warnings_of(loaded: &Loaded) -> Vec<String> {
    let of_config = loaded.warnings.iter().map(ToString::to_string);
    of_config.chain(loaded.config.listeners.iter().flat_map(expiries)).collect()
}

fn expiries(listener: &ListenerConfig) -> Vec<String> {
    let Some(tls) = &listener.tls else { return Vec::new() };
    let (now, loaded) = (SystemTime::now(), tls.loaded());
    let expiry = |certificate: &Certificate| {
        let verb = if certificate.expires <= now { "has expired on" } else { "expires on" };
        let (listener, name, expires) = (&listener.name, &certificate.name, rfc3339(certificate.expires));
        format!("listener {listener}: the certificate {name} {verb} {expires}")
    };
    loaded.certificates().filter(|it| it.expires_soon(now)).map(expiry).collect()
}

/// `found`: what stands in a start's way.
fn print_json(loaded: Result<Loaded, Problems>, found: Vec<Problem>) -> Result<(), CliError> {
    let warnings = loaded.as_ref().map(warnings_of).unwrap_or_default();
    let (valid, file, problems) = match loaded {
        Ok(loaded) => (true, loaded.file.map(|file| file.display().to_string()), found),
        Err(Problems(problems)) => (false, None, problems),
    };
    let report = CheckReport { valid, file, problems: &problems, warnings: &warnings };
    print_line(serde_json::to_string_pretty(&report).expect("a report has text keys only"));
    match (valid, problems.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(CliError::FoundInTheWay),
        (false, _) => Err(CliError::AlreadyReported),
    }
}
