//! The program's own log: to standard error, as text or JSON. Connections have a log of their own.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use super::escape::{escaped, escaped_json};
use super::events::EventLayer;
use super::log_writer::{LogWriter, LogWriterOptions};

#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// The least severe level shown.
    pub level: Level,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// Of the whole process, as the log is.
static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Starts the log for the whole process; a second call changes nothing. Panics are logged too from then on.
///
/// # Errors
/// The thread that writes it can't be started.
pub fn start(settings: LogSettings) -> io::Result<()> {
    let options = LogWriterOptions {
        thread: "lb-log",
        title: "the log",
        // Its lines are few, and the last ones matter if the process is killed.
        gathering: Duration::ZERO,
        open: Box::new(|| Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))),
    };
    if WRITER.set(LogWriter::start(options)?).is_err() {
        return Ok(());
    }
    let LogSettings { level, json } = settings;
    let is_colored = !json && io::stderr().is_terminal();
    let lines = fmt::layer()
        .with_target(false)
        .with_ansi(is_colored)
        // It would report errors of the writer, which has none, to standard error directly.
        .log_internal_errors(false)
        .with_writer(move || EventWriter { json, is_colored });
    let lines = if json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    // Events are kept whatever lines the log shows.
    let events = EventLayer.with_filter(EventLayer::filter());
    // An error means that another log was started before.
    let _ = registry().with(lines.with_filter(LevelFilter::from_level(level))).with(events).try_init();
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// What writes the log, once it was started: whatever else goes to standard error then has to go by it.
pub fn writer() -> Option<&'static LogWriter> {
    WRITER.get()
}

/// In place of the standard library's, which writes to standard error by the thread that panics.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let formatted = payload.downcast_ref::<String>().map(String::as_str);
    let message = formatted.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = thread::current().name().unwrap_or("unnamed").to_owned();
    // Only with RUST_BACKTRACE=1.
    let backtrace = Backtrace::capture();
    let shown = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = shown.then(|| backtrace.to_string());
    tracing::error!(thread, place, panic = message, backtrace, "panicked");
}

/// Takes an event, formatted, as its line.
struct EventWriter {
    json: bool,
    is_colored: bool,
}

impl Write for EventWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let Some(log) = writer() else { return Ok(event.len()) };
        let text = String::from_utf8_lossy(event);
        let text = text.trim_end_matches('\n');
        // The access log calls it so.
        let text = match text.strip_prefix("{\"timestamp\":") {
            Some(rest) if self.json => format!("{{\"time\":{rest}").into(),
            _ => Cow::Borrowed(text),
        };
        let text = &*text;
        let line = match (self.json, self.is_colored) {
            (true, _) => escaped_json(text),
            (false, false) => escaped(text),
            // The colours begin with the escape character; the formatter escapes it where a value has it.
            (false, true) => text.split('\u{1b}').map(escaped).collect::<Vec<_>>().join("\u{1b}").into(),
        };
        log.write(format!("{line}\n").as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
