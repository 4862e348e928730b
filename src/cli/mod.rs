//! The command line, and the dispatch to the commands.

mod admin;
mod backend;
mod change;
mod check;
mod client;
mod config_args;
mod connections;
mod demo;
mod environment;
mod error;
mod events;
mod foreign;
mod generate;
mod import;
mod log_level;
mod run;
mod schema;
mod status;
mod top;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use crate::telemetry::{Severity, is_on_stderr, log_writer};

use config_args::ConfigArgs;
use error::CliError;

/// The program ends so long after its last message at the latest, read or not.
const LAST_MESSAGE_TIME: Duration = Duration::from_secs(2);

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit:   ",
    env!("LB_BUILD_COMMIT"),
    "\ntarget:   ",
    env!("LB_BUILD_TARGET"),
    "\nfeatures: ",
    env!("LB_BUILD_FEATURES"),
);

/// A layer-4 TCP load balancer.
///
/// Spreads TCP connections over backends and routes round a server that fails. See it work at once: `lb demo`.
#[derive(Debug, Parser)]
#[command(name = "lb", version, long_version = LONG_VERSION)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 clean stop; 1 failure while running; 2 wrong usage or configuration.\n\
                        Signals: SIGTERM and SIGINT drain and stop, a second one stops at once; SIGHUP reloads; \
                        SIGUSR1 opens the logs again; SIGUSR2 upgrades to a newly started program.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the balancer (the same as `lb` alone)
    Run(ConfigArgs),
    /// Validate the configuration: every problem is listed, nothing is started
    Check(check::CheckArgs),
    /// See it work: two small servers, and the balancer in front of them
    Demo(demo::DemoArgs),
    /// Show a running balancer's state; exit code 0 only if it is ready
    Status(status::StatusArgs),
    /// Show a running balancer live, on the whole terminal: sort, filter, drain and enable by keys
    Top(top::TopArgs),
    /// Show the connections of clients that a running balancer has
    Connections(connections::ConnectionsArgs),
    /// Reset connections of clients, by id, client, backend, pool or listener
    Kill(connections::KillArgs),
    /// Add, remove, drain, disable, enable or weight backends of a running balancer
    Backend(backend::BackendArgs),
    /// Make an lb.yaml from an nginx.conf or a haproxy.cfg, and list what is left out
    Import(import::ImportArgs),
    /// Print the JSON Schema of lb.yaml, for editors
    Schema,
    /// Print a completion script for a shell
    Completions(generate::CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(generate::ManArgs),
    /// Make a running balancer read its configuration again, or say what that would change
    Reload(change::ReloadArgs),
    /// Start the program anew and hand over to it; says which process accepts then, or why none does
    Upgrade(change::UpgradeArgs),
    /// Drain and stop a running balancer
    Stop(change::StopArgs),
    /// Show what has happened to a running balancer: ejections, outages, reloads, what operators did
    Events(events::EventsArgs),
    /// Show or set how much a running balancer's log shows
    LogLevel(log_level::LogLevelArgs),
}

/// The command line's description, for the reference.
#[cfg(test)]
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let _last = LastWords;
    let cli = Cli::try_parse().unwrap_or_else(|error| with_hint(error).exit());
    let result = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Status(args) => status::status(&args),
        Command::Top(args) => top::top(&args),
        Command::Connections(args) => connections::connections(&args),
        Command::Kill(args) => connections::kill(&args),
        Command::Backend(args) => backend::backend(&args),
        Command::Reload(args) => change::reload(&args),
        Command::Upgrade(args) => change::upgrade(&args),
        Command::Stop(args) => change::stop(&args),
        Command::Events(args) => events::events(&args),
        Command::LogLevel(args) => log_level::log_level(&args),
        Command::Import(args) => import::import(&args),
        Command::Man(args) => generate::man(&args, Cli::command()),
        Command::Completions(args) => {
            generate::completions(&args, Cli::command());
            Ok(())
        }
        Command::Schema => {
            schema::schema();
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::AlreadyReported | CliError::FoundInTheWay) {
                print_error(&error);
            }
            error.exit_code()
        }
    }
}

/// Says what to write where options stand before a command.
fn with_hint(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::ArgumentConflict
        && let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand)
    {
        let hint = format!("options come after the command: lb {command} OPTIONS").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    }
    error
}

/// Writes what the log has if the main thread panics: its message is in there.
struct LastWords;

impl Drop for LastWords {
    fn drop(&mut self) {
        if let Some(log) = log_writer().filter(|_| thread::panicking()) {
            log.flush(LAST_MESSAGE_TIME);
        }
    }
}

/// Once there is a log, by its writer: after its lines, and the end doesn't wait for a reader that doesn't read.
fn print_error(error: &CliError) {
    if let Some(log) = log_writer() {
        log.write(Severity::Error, format!("{error}\n").as_bytes());
        log.flush(LAST_MESSAGE_TIME);
    }
    // Whoever started it looks there. That nobody reads it any more is no further failure.
    if log_writer().is_none() || !is_on_stderr() {
        let _ = writeln!(io::stderr(), "{error}");
    }
}
