//! The program's own log: to standard error, as text or JSON. Connections have a log of their own.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::fmt;

#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// The least severe level shown.
    pub level: Level,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// Starts the log for the whole process; a second call changes nothing.
pub fn start(settings: LogSettings) {
    let builder = fmt()
        .with_max_level(settings.level)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // An error means that a log was started before, as tests do.
    let _ = if settings.json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
}
