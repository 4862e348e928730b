//! The keys of the log and the access log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::log::LogFormat;

use super::off::{off_or_word, or_false};

/// The log and the access log.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSpec {
    /// The least severe level shown.
    pub level: LogLevel,
    /// Of both the log and the access log.
    pub format: LogFormat,
    /// Where the access log goes: off, stdout, stderr, a file's path, syslog:HOST:PORT, or syslog: and the path of a
    /// unix socket.
    #[serde(deserialize_with = "off_or_word")]
    #[schemars(transform = or_false)]
    pub access: String,
    /// A line of the access log, as text with $words in it; or combined, as Apache and nginx have it. Default: as
    /// `format`.
    pub access_format: Option<String>,
    /// Where the program's own log goes: as `access`, but not off.
    pub program: String,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            level: LogLevel::default(),
            format: LogFormat::default(),
            access: "stdout".to_owned(),
            access_format: None,
            program: "stderr".to_owned(),
        }
    }
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}
