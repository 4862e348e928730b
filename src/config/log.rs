//! The settings of the log and the access log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::Level;

use crate::telemetry::LogTarget;

use super::access_format::AccessFormat;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe level shown.
    pub level: Level,
    /// Of both logs.
    pub format: LogFormat,
    /// Where the access log goes; `None`: it is off.
    pub access: Option<LogTarget>,
    /// Of the access log's lines; `None`: as `format`.
    pub access_format: Option<AccessFormat>,
    /// Where the program's own log goes.
    pub program: LogTarget,
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
