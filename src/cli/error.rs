//! Why a command fails: a variant for each cause, with its exit code.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Problems;
use crate::server::RunError;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum CliError {
    /// The configuration is not valid.
    Config(Problems),
    /// The configuration is not valid, which was printed as JSON already.
    AlreadyReported,
    /// It is valid, but this machine keeps it from running.
    InTheWay(Problems),
    /// The same, which was printed as JSON already.
    FoundInTheWay,
    /// Of a configuration of another program, this was left out, which changes traffic.
    LeftOut(Vec<String>),
    /// A file can't be written.
    Output { file: PathBuf, source: io::Error },
    /// The balancer could not run.
    Run(RunError),
    /// No runtime could be built for requests to a balancer.
    Runtime(io::Error),
    /// By the environment or a flag there is no admin server.
    AdminOff,
    /// What is given as the admin server's address is none.
    NoAddress { address: String, why: &'static str },
    /// The file of the bearer token can't be read.
    Token { file: PathBuf, source: io::Error },
    /// The admin server gave no answer.
    NoAnswer { address: String, source: io::Error },
    /// The admin server's answer is not a report of this version.
    NotAReport { address: String, path: String, source: serde_json::Error },
    /// The admin server needs a bearer token, or another one.
    Unauthorized(String),
    /// The balancer refused a change.
    Refused(String),
    /// The person at the terminal did not say yes.
    NotConfirmed,
    /// The time to wait for the end of a backend's connections is over.
    StillOpen { backend: String, active: usize },
    /// The balancer is not ready for traffic.
    NotReady(String),
    /// `lb top` has no terminal to draw on.
    NoTerminal(io::Error),
    /// Pools without a usable backend.
    PoolsDown(String),
    /// The demo's servers or its balancer could not be started.
    Demo(io::Error),
    /// A request of the demo failed.
    DemoRequest(io::Error),
    /// The demo's requests were not shared equally.
    UnequalShares,
}

impl CliError {
    /// 2 for wrong usage or configuration, as clap has it too; 3 for an import that changes traffic; 1 for what failed
    /// while running.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::AlreadyReported | Self::NoAddress { .. } => ExitCode::from(2),
            Self::LeftOut(_) => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Config(problems) | Self::InTheWay(problems) = self {
            for problem in &problems.0 {
                writeln!(f, "error: {problem}")?;
            }
            let count = problems.0.len();
            return write!(f, "{count} problem{}; nothing was started", if count == 1 { "" } else { "s" });
        }
        if let Self::LeftOut(notes) = self {
            notes.iter().try_for_each(|note| writeln!(f, "left out: {note}"))?;
            return write!(f, "{} of them change traffic; the reference is docs/reference/import.md", notes.len());
        }
        f.write_str("error: ")?;
        match self {
            Self::Config(_) | Self::AlreadyReported => f.write_str("the configuration is not valid"),
            Self::InTheWay(_) | Self::FoundInTheWay => f.write_str("this machine keeps it from running"),
            Self::LeftOut(_) => f.write_str("something was left out that changes traffic"),
            Self::Output { file, source } => write!(f, "can't write {}: {source}", file.display()),
            Self::Run(error) => error.fmt(f),
            Self::Runtime(error) => write!(f, "can't start the runtime: {error}"),
            Self::AdminOff => f.write_str("the admin server is off (by LB_ADMIN, --admin or the configuration)"),
            Self::NoAddress { address, why } => write!(
                f,
                "`{address}` is not the address of an admin server: {why}; see --admin ADDR: host:port, unix:/path, or \
                 the URL of its page"
            ),
            Self::Token { file, source } => write!(f, "can't read the token from {}: {source}", file.display()),
            Self::NoAnswer { address, source } => {
                write!(f, "no answer from the admin server at {address}: {source} (is lb running? see --admin ADDR)")
            }
            Self::NotAReport { address, path, source } => write!(f, "{address}{path} answered no report: {source}"),
            Self::Unauthorized(reason) => write!(f, "{reason} (see --token-file FILE)"),
            Self::Refused(reason) => f.write_str(reason),
            Self::NotConfirmed => f.write_str("nothing was done"),
            Self::StillOpen { backend, active } => write!(f, "{backend} drains, and {active} connections are left"),
            Self::NotReady(reason) => write!(f, "not ready: {reason}"),
            Self::NoTerminal(error) => write!(f, "lb top needs a terminal ({error}); lb status needs none"),
            Self::PoolsDown(pools) => write!(f, "no usable backend in: {pools}"),
            Self::Demo(error) => write!(f, "the demo can't start: {error}"),
            Self::DemoRequest(error) => write!(f, "a GET through the balancer failed: {error}"),
            Self::UnequalShares => f.write_str("the requests were not shared equally"),
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
