//! What flags and environment variables change in the configuration: a list of edits to its tree.
//!
//! Knows the names of flags and the paths they stand for; the values are judged where the file's values are.

use clap::Args;

/// The flags that override the file; each is also an environment variable, `LB_` and its name in capitals.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Overrides (each also an environment variable: LB_ and the flag's name in capitals)")]
pub struct Overrides {
    /// Listen here: IP:port, [::]:port, *:port (both families) or unix:/path. May be repeated
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// A backend; may be repeated, and replaces the file's list
    #[arg(long, value_name = "ADDR[,weight=N][,backup]")]
    pub backend: Vec<String>,
    /// tcp: any protocol, bytes untouched. http: requests one by one, headers injected
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// round_robin, least_connections, random_two or source_hash
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// Where metrics, health and the API are served, or off
    #[arg(long, value_name = "ADDR|off")]
    pub admin: Option<String>,
    /// Worker threads: a number, or auto (the cores this process may use)
    #[arg(long, value_name = "N|auto")]
    pub workers: Option<String>,
    /// Client connections at once: a number, or auto (from the open-file limit)
    #[arg(long, value_name = "N|auto")]
    pub max_connections: Option<String>,
    /// The time one connect to a backend may take, such as 500ms
    #[arg(long, value_name = "TIME")]
    pub connect_timeout: Option<String>,
    /// A connection with no byte either way for this long is closed, such as 10m
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<String>,
    /// After SIGTERM, connections may go on for this long, such as 30s
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
    #[arg(long)]
    pub watch: bool,
    /// Any key by its path, such as pools.app.attempts=2. May be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
}

/// Whose key a simple flag stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A top-level key.
    Global,
    /// A key of the only listener.
    Listener,
    /// A key of the only pool.
    Pool,
}

/// One change to the configuration's tree.
#[derive(Clone, Debug)]
pub struct Edit {
    /// Whose key `path` is.
    pub scope: Scope,
    /// The key's path within its scope.
    pub path: String,
    /// The new value.
    pub value: EditValue,
    /// What the user typed, for messages: `--policy`, `LB_POLICY`.
    pub origin: String,
}

/// The new value of an [`Edit`].
#[derive(Clone, Debug)]
pub enum EditValue {
    /// A text, whatever it looks like.
    Text(String),
    /// To be read as YAML.
    Yaml(String),
    /// A list of texts.
    List(Vec<String>),
    /// Backends in the flag's own form, `ADDR[,weight=N][,backup]`.
    Backends(Vec<String>),
}

impl Overrides {
    /// Reads the environment variables through `variable`. `LB_LISTEN` and
    /// `LB_BACKEND` take several values with spaces between them, `LB_SET` with `;` between them.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let one = |name: &str| variable(name);
        let many = |name: &str, separator: char| {
            let value = one(name).unwrap_or_default();
            value.split(separator).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        Self {
            listen: many("LB_LISTEN", ' '),
            backend: many("LB_BACKEND", ' '),
            mode: one("LB_MODE"),
            policy: one("LB_POLICY"),
            admin: one("LB_ADMIN"),
            workers: one("LB_WORKERS"),
            max_connections: one("LB_MAX_CONNECTIONS"),
            connect_timeout: one("LB_CONNECT_TIMEOUT"),
            idle_timeout: one("LB_IDLE_TIMEOUT"),
            drain_timeout: one("LB_DRAIN_TIMEOUT"),
            log_level: one("LB_LOG_LEVEL"),
            log_format: one("LB_LOG_FORMAT"),
            access_log: one("LB_ACCESS_LOG"),
            watch: one("LB_WATCH").is_some_and(|value| value != "false"),
            set: many("LB_SET", ';'),
        }
    }

    /// The edits, in the order of their force: simple flags, then `--set`. `name` turns a flag's name into what the
    /// user typed. Beside them a message for each `--set` that has no `=`.
    pub fn edits(&self, name: impl Fn(&str) -> String) -> (Vec<Edit>, Vec<String>) {
        let mut edits = Vec::new();
        let mut add = |scope, flag: &str, path: &str, value| {
            edits.push(Edit { scope, path: path.to_owned(), value, origin: name(flag) });
        };
        if !self.listen.is_empty() {
            add(Scope::Listener, "listen", "bind", EditValue::List(self.listen.clone()));
        }
        if !self.backend.is_empty() {
            add(Scope::Pool, "backend", "backends", EditValue::Backends(self.backend.clone()));
        }
        let simple = [
            (Scope::Listener, "mode", "mode", &self.mode),
            (Scope::Pool, "policy", "policy", &self.policy),
            (Scope::Global, "admin", "admin.bind", &self.admin),
            (Scope::Global, "workers", "workers", &self.workers),
            (Scope::Global, "max-connections", "max_connections", &self.max_connections),
            (Scope::Pool, "connect-timeout", "connect_timeout", &self.connect_timeout),
            (Scope::Listener, "idle-timeout", "timeouts.idle", &self.idle_timeout),
            (Scope::Global, "drain-timeout", "drain.timeout", &self.drain_timeout),
            (Scope::Global, "log-level", "log.level", &self.log_level),
            (Scope::Global, "log-format", "log.format", &self.log_format),
            (Scope::Global, "access-log", "log.access", &self.access_log),
        ];
        for (scope, flag, path, value) in simple {
            if let Some(value) = value {
                add(scope, flag, path, EditValue::Text(value.clone()));
            }
        }
        if self.watch {
            add(Scope::Global, "watch", "watch", EditValue::Yaml("true".to_owned()));
        }
        let mut wrong = Vec::new();
        for setting in &self.set {
            match setting.split_once('=') {
                Some((path, value)) => {
                    let (path, value) = (path.trim().to_owned(), EditValue::Yaml(value.to_owned()));
                    edits.push(Edit {
                        scope: Scope::Global,
                        path,
                        value,
                        origin: format!("{} {setting}", name("set")),
                    });
                }
                None => wrong.push(format!("{} {setting}: write PATH=VALUE, such as drain.timeout=5s", name("set"))),
            }
        }
        (edits, wrong)
    }
}

/// A flag's name as typed on the command line.
pub fn flag_name(flag: &str) -> String {
    format!("--{flag}")
}

/// A flag's name as an environment variable.
pub fn variable_name(flag: &str) -> String {
    format!("LB_{}", flag.replace('-', "_").to_ascii_uppercase())
}
