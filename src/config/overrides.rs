//! Flags and environment variables that override the file, as a list of edits to its tree.
//!
//! Knows the names of flags and of the keys they set; the values are checked together with the file's.

use std::mem;

use clap::Args;

use super::problem::{MAX_PROBLEMS, Problem};
use super::yaml::Scope::{self, Global, Listener, Pool};
use super::yaml::{Edit, EditValue, nearest_word};

/// The flags that override the file; each is also an environment variable, `LB_` and its name in capitals.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Overrides (each also an environment variable: LB_ and the flag's name in capitals)")]
pub struct Overrides {
    /// Listen here: IP:port, [::]:port, *:port (both families) or unix:/path. May be repeated
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// A backend; may be repeated, and replaces the file's list
    #[arg(long, value_name = "ADDR[,weight=N][,backup[=N]]")]
    pub backend: Vec<String>,
    /// tcp: any protocol, bytes unchanged. http: each request is balanced, and headers are set
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// round_robin, least_connections, random_two, source_hash or first
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// Where metrics, health and the API are served, or off
    #[arg(long, value_name = "ADDR|off")]
    pub admin: Option<String>,
    /// A unix socket for the same: whoever may write to its file needs no token
    #[arg(long, value_name = "PATH|off")]
    pub admin_socket: Option<String>,
    /// Worker threads: a number, or auto (the cores this process may use)
    #[arg(long, value_name = "N|auto")]
    pub workers: Option<String>,
    /// Client connections at once: a number, or auto (as many as open files and memory allow)
    #[arg(long, value_name = "N|auto")]
    pub max_connections: Option<String>,
    /// auto, io_uring or epoll: what hands small sends to the kernel
    #[arg(long, value_name = "ENGINE")]
    pub relay_engine: Option<String>,
    /// How long one connect to a backend may take, such as 500ms
    #[arg(long, value_name = "TIME")]
    pub connect_timeout: Option<String>,
    /// Reset a connection without a byte in either direction for this long, such as 10m; or off
    #[arg(long, value_name = "TIME|off")]
    pub idle_timeout: Option<String>,
    /// How long open connections may continue after SIGTERM, such as 30s
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<String>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// off, stdout, stderr or a file
    #[arg(long, value_name = "WHERE")]
    pub access_log: Option<String>,
    /// Reload when the configuration file changes
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub watch: Option<String>,
    /// Any key by its path, such as pools.app.attempts=2. May be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
}

/// A flag with one value, and the key that it sets.
struct Flag {
    name: &'static str,
    scope: Scope,
    path: &'static str,
    value: fn(&mut Overrides) -> &mut Option<String>,
}

/// In the order in which they are applied.
const FLAGS: [Flag; 13] = [
    Flag { name: "mode", scope: Listener, path: "mode", value: |all| &mut all.mode },
    Flag { name: "policy", scope: Pool, path: "policy", value: |all| &mut all.policy },
    Flag { name: "admin", scope: Global, path: "admin.bind", value: |all| &mut all.admin },
    Flag { name: "admin-socket", scope: Global, path: "admin.socket", value: |all| &mut all.admin_socket },
    Flag { name: "workers", scope: Global, path: "workers", value: |all| &mut all.workers },
    Flag { name: "max-connections", scope: Global, path: "max_connections", value: |all| &mut all.max_connections },
    Flag { name: "relay-engine", scope: Global, path: "relay.engine", value: |all| &mut all.relay_engine },
    Flag { name: "connect-timeout", scope: Pool, path: "connect_timeout", value: |all| &mut all.connect_timeout },
    Flag { name: "idle-timeout", scope: Listener, path: "timeouts.idle", value: |all| &mut all.idle_timeout },
    Flag { name: "drain-timeout", scope: Global, path: "drain.timeout", value: |all| &mut all.drain_timeout },
    Flag { name: "log-level", scope: Global, path: "log.level", value: |all| &mut all.log_level },
    Flag { name: "log-format", scope: Global, path: "log.format", value: |all| &mut all.log_format },
    Flag { name: "access-log", scope: Global, path: "log.access", value: |all| &mut all.access_log },
];

/// Further ones that have a variable.
const FURTHER_FLAGS: [&str; 6] = ["listen", "backend", "watch", "set", "config", "token-file"];

impl Overrides {
    /// Reads the environment variables through `variable`. `LB_LISTEN` and `LB_BACKEND` take several values with spaces
    /// between them, `LB_SET` with `;` between them.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let many = |flag: &str, separator: char| -> Vec<String> {
            let value = variable(&variable_name(flag)).unwrap_or_default();
            value.split(separator).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let mut overrides = Self {
            listen: many("listen", ' '),
            backend: many("backend", ' '),
            watch: variable(&variable_name("watch")),
            set: many("set", ';'),
            ..Self::default()
        };
        for flag in &FLAGS {
            *(flag.value)(&mut overrides) = variable(&variable_name(flag.name));
        }
        overrides
    }

    /// Those of the variables with these names that are nearly one that is read: a mistyped one would do nothing.
    pub fn misspelt(names: impl Iterator<Item = String>) -> Vec<Problem> {
        let flags = FLAGS.iter().map(|flag| flag.name).chain(FURTHER_FLAGS);
        let known: Vec<String> = flags.map(variable_name).collect();
        let near = names.filter(|name| name.starts_with("LB_")).filter_map(|name| {
            let word = nearest_word(&name, &known).filter(|word| **word != name)?;
            Some(Problem::general(format!("{name} is no variable that lb reads; did you mean {word}?")))
        });
        near.take(MAX_PROBLEMS).collect()
    }

    /// The edits in the order in which they are to be applied, simple flags before `--set`; and a problem for each
    /// `--set` without `=`. `name` turns a flag's name into what the user typed.
    pub(super) fn edits(mut self, name: fn(&str) -> String) -> (Vec<Edit>, Vec<Problem>) {
        let mut edits = Vec::new();
        let mut add = |scope, flag: &str, path: &str, value| {
            edits.push(Edit { scope, path: path.to_owned(), value, origin: name(flag) });
        };
        if !self.listen.is_empty() {
            add(Listener, "listen", "bind", EditValue::List(mem::take(&mut self.listen)));
        }
        if !self.backend.is_empty() {
            add(Pool, "backend", "backends", EditValue::Backends(mem::take(&mut self.backend)));
        }
        for flag in &FLAGS {
            if let Some(value) = (flag.value)(&mut self).take() {
                add(flag.scope, flag.name, flag.path, EditValue::Text(value));
            }
        }
        if let Some(watch) = self.watch.take() {
            add(Global, "watch", "watch", EditValue::Yaml(watch));
        }
        let mut problems = Vec::new();
        for setting in self.set {
            let origin = format!("{} {setting}", name("set"));
            match setting.split_once('=') {
                Some((path, value)) => {
                    let (path, value) = (path.trim().to_owned(), EditValue::Yaml(value.to_owned()));
                    edits.push(Edit { scope: Global, path, value, origin });
                }
                None => {
                    problems.push(Problem::general(format!("{origin}: write PATH=VALUE, such as drain.timeout=5s")));
                }
            }
        }
        (edits, problems)
    }
}

/// A flag's name as typed on the command line.
pub(super) fn flag_name(flag: &str) -> String {
    format!("--{flag}")
}

/// A flag's name as an environment variable.
pub(super) fn variable_name(flag: &str) -> String {
    format!("LB_{}", flag.replace('-', "_").to_ascii_uppercase())
}
