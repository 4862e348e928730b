//! The configuration: valid run-time types, made from a file, the environment and flags.
//!
//! `mirror` has the YAML's shape, `file` reads it, `overrides` edits it, `build` turns it into [`Config`] or lists every problem.
//! Nothing here opens a socket or knows one.

mod address;
mod build;
mod build_pool;
mod file;
mod http;
mod listener;
mod locate;
mod mirror;
mod networks;
mod overrides;
mod pool;
mod report;
mod schema;
mod short_form;
mod units;

use std::fmt;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use address::{BackendAddress, BindAddress};
pub use http::{BackendKeepAlive, HeaderCheck};
pub use listener::{ListenerConfig, PerClient, ProxyProtocol, Route};
pub use networks::Networks;
pub use overrides::{Overrides, flag_name, variable_name};
pub use pool::{
    BackendConfig, FailureDetection, HealthCheck, HttpCheck, PoolConfig, Queue, Resolve, SendProxy, Tcp, scaled_weight,
};
pub use schema::schema;

/// Where the file is looked for when neither a flag nor `LB_CONFIG` names one.
pub const DEFAULT_FILES: [&str; 2] = ["./lb.yaml", "/etc/lb/lb.yaml"];

/// A configuration that can run.
#[derive(Clone, Debug)]
pub struct Config {
    /// In the order of their names.
    pub listeners: Vec<ListenerConfig>,
    /// In the order of their names; every listener's pool is here.
    pub pools: Vec<PoolConfig>,
    /// The admin server.
    pub admin: AdminConfig,
    /// `None`: as many as the cores this process may use.
    pub workers: Option<NonZeroUsize>,
    /// `None`: from the open-file limit.
    pub max_connections: Option<NonZeroUsize>,
    /// How it stops.
    pub drain: DrainConfig,
    /// How bytes are moved between sockets.
    pub relay: RelayMode,
    /// Logs.
    pub log: LogConfig,
    /// Whether a change of the file reloads it; default false.
    pub watch: bool,
}

/// The admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; `None`: it is off.
    pub bind: Option<BindAddress>,
    /// Holds the bearer token that changes need; `None`: they need none, and are taken on a loopback or unix bind only.
    pub token_file: Option<PathBuf>,
    /// Names under which changes are taken, beside addresses and localhost: any other may be an attacker's that was made to resolve
    /// to this address.
    pub allowed_hosts: Vec<String>,
}

/// Judges of what the configuration takes as text and other floors understand.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// Of `set_headers`.
    pub header: HeaderCheck,
    /// Of a route's `sni`.
    pub server_name: NameCheck,
}

/// Says what is wrong with the server name of a route.
pub type NameCheck = fn(name: &str) -> Result<(), String>;

/// How it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// Accepting goes on for this long after the signal; default 0.
    pub grace: Duration,
    /// Connections may then go on for this long; default 30 seconds.
    pub timeout: Duration,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe level shown.
    pub level: LogLevel,
    /// Of both the log and the access log.
    pub format: LogFormat,
    /// Where the access log goes.
    pub access: AccessLog,
}

/// What a listener understands of the bytes it passes on.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing: any protocol passes unchanged.
    Tcp,
    /// HTTP/1: requests are balanced one by one, and headers are set on each.
    Http,
}

/// How bytes are moved between sockets.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayMode {
    /// Bulk is spliced, the rest copied.
    #[default]
    Auto,
    /// Always copied.
    Copy,
    /// Always spliced, as far as the system grants pipes.
    Splice,
}

/// How the next backend is chosen.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// In turn, exact over all workers, weights interleaved smoothly.
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConnections,
    /// The better of two taken at random.
    RandomTwo,
    /// By the client's address (Maglev): a client keeps its backend.
    SourceHash,
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    #[allow(missing_docs)]
    Error,
    #[allow(missing_docs)]
    Warn,
    #[allow(missing_docs)]
    #[default]
    Info,
    #[allow(missing_docs)]
    Debug,
    #[allow(missing_docs)]
    Trace,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the access log goes: `off`, `stdout`, `stderr`, or a file's path.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(from = "String", into = "String")]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file.
    File(PathBuf),
}

impl From<String> for AccessLog {
    fn from(text: String) -> Self {
        match text.as_str() {
            "off" => Self::Off,
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            _ => Self::File(PathBuf::from(text)),
        }
    }
}

impl From<AccessLog> for String {
    fn from(access: AccessLog) -> Self {
        match access {
            AccessLog::Off => "off".to_owned(),
            AccessLog::Stdout => "stdout".to_owned(),
            AccessLog::Stderr => "stderr".to_owned(),
            AccessLog::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// Problems that are told of one configuration at most; the rest would be noise.
const MAX_PROBLEMS: usize = 100;

/// More than this is no configuration: 10,000 networks take 200 KB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Something wrong with the configuration, and the place to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `lb.yaml:3:5`, `--policy`, `LB_POLICY`.
    pub place: Option<String>,
    /// The key's path; empty for the whole file.
    pub path: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

impl Problem {
    fn at(place: impl Into<String>, path: &str, message: impl Into<String>) -> Self {
        Self { place: Some(place.into()), path: path.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong with a configuration, or [`MAX_PROBLEMS`] of it.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file that a flag or `LB_CONFIG` names.
    pub file: Option<PathBuf>,
    /// From the environment.
    pub environment: Overrides,
    /// From flags; they win over the environment.
    pub flags: Overrides,
}

/// A configuration that can run, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The run-time form.
    pub config: Config,
    /// The effective configuration as YAML, long form.
    pub printed: String,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
}

impl Source {
    /// Reads the file, applies the environment and the flags, and validates; `check` judges what other floors understand.
    ///
    /// # Errors
    /// Every problem found, each with its place and remedy.
    pub fn load(&self, check: &Checks) -> Result<Loaded, Problems> {
        let file = self.find_file()?;
        let mut tree = match &file {
            None => file::Tree::empty(),
            Some(path) => {
                let name = path.strip_prefix("./").unwrap_or(path).display().to_string();
                let text = read_text(path).map_err(|error| {
                    Problems(vec![Problem::at(name.clone(), "", format!("can't be read: {error}"))])
                })?;
                file::Tree::read(&name, &text).map_err(Problems)?
            }
        };
        let (from_environment, mut wrong) = self.environment.edits(variable_name);
        let (from_flags, wrong_flags) = self.flags.edits(flag_name);
        tree.apply(from_environment);
        tree.apply(from_flags);
        wrong.extend(wrong_flags);
        let (mirror, mut reporter) = tree.into_file();
        reporter.problems.extend(wrong.into_iter().map(|place| Problem {
            place: None,
            path: String::new(),
            message: place,
        }));
        let config = build::build(&mirror, check, &mut reporter);
        match config {
            Some(config) if reporter.problems.is_empty() => Ok(Loaded { config, printed: file::print(&mirror), file }),
            _ => Err(Problems(reporter.problems)),
        }
    }

    /// The named file, or the first default file there is; none is needed where flags give a listener and a backend.
    ///
    /// # Errors
    /// No file is named, and none of the default names is there.
    pub fn find_file(&self) -> Result<Option<PathBuf>, Problems> {
        if self.file.is_some() {
            return Ok(self.file.clone());
        }
        let given =
            |pick: fn(&Overrides) -> &Vec<String>| !pick(&self.flags).is_empty() || !pick(&self.environment).is_empty();
        if given(|overrides| &overrides.listen) && given(|overrides| &overrides.backend) {
            return Ok(None);
        }
        match DEFAULT_FILES.iter().map(Path::new).find(|path| path.exists()) {
            Some(path) => Ok(Some(path.to_owned())),
            None => {
                let message = format!(
                    "no configuration: neither {} is there; name a file with -c FILE, or give --listen ADDR and \
                     --backend ADDR (or see it work with `lb demo`)",
                    DEFAULT_FILES.join(" nor ")
                );
                Err(Problems(vec![Problem { place: None, path: String::new(), message }]))
            }
        }
    }
}
