//! The command line: what the user typed, and which command does it.

mod admin;
mod change;
mod check;
mod client;
mod demo;
mod run;
mod schema;
mod status;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Overrides, Problems, Source};
use crate::server::RunError;

/// A layer-4 TCP load balancer.
///
/// Spreads TCP connections over backends and routes round a server that fails. See it work at once: `lb demo`.
#[derive(Debug, Parser)]
#[command(name = "lb", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 clean stop; 1 failure while running; 2 wrong usage or configuration.\n\
                        Signals: SIGTERM and SIGINT drain and stop, a second one stops at once; SIGHUP reloads; SIGUSR1 \
                        opens the access log again; SIGUSR2 hands over to a newly started program.")]
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
    /// Drain, disable or enable a backend of a running balancer
    Backend(change::BackendArgs),
    /// Print the JSON Schema of lb.yaml, for editors
    Schema,
    /// Have a running balancer read its configuration again
    Reload(change::ReloadArgs),
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// The configuration file [env: LB_CONFIG] [default: ./lb.yaml, else /etc/lb/lb.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

impl ConfigArgs {
    fn source(&self) -> Source {
        let file = self.config.clone().or_else(|| variable("LB_CONFIG").map(PathBuf::from));
        Source { file, environment: Overrides::from_environment(variable), flags: self.overrides.clone() }
    }
}

/// An environment variable; an empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Prints a line to standard output. Whoever reads it may have gone, as `head` does: that is no failure of ours.
fn print_line(text: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// What made a command fail.
#[derive(Debug)]
enum CliError {
    /// Exit code 2.
    Config(Problems),
    /// Exit code 1.
    Run(RunError),
    /// Exit code 1.
    Failed(String),
    /// The configuration's problems were told in another form. Exit code 2.
    AlreadyReported,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => {
                for problem in &problems.0 {
                    writeln!(f, "error: {problem}")?;
                }
                let count = problems.0.len();
                write!(f, "{count} problem{}; nothing was started", if count == 1 { "" } else { "s" })
            }
            Self::Run(error) => write!(f, "error: {error}"),
            Self::Failed(message) => write!(f, "error: {message}"),
            Self::AlreadyReported => Ok(()),
        }
    }
}

impl From<Problems> for CliError {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Status(args) => status::status(&args),
        Command::Backend(args) => change::backend(&args),
        Command::Reload(args) => change::reload(&args),
        Command::Schema => {
            schema::schema();
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::AlreadyReported) {
                eprintln!("{error}");
            }
            match error {
                // As clap has it too.
                CliError::Config(_) | CliError::AlreadyReported => ExitCode::from(2),
                CliError::Run(_) | CliError::Failed(_) => ExitCode::FAILURE,
            }
        }
    }
}
