//! The program's own log, as text or JSON. Connections have a log of their own.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, registry};

use super::escape::{escaped, escaped_json};
use super::events::EventLayer;
use super::log_target::LogTarget;
use super::log_writer::{LogWriter, LogWriterOptions};
use super::syslog::Severity;

/// The levels by their names, the most severe one first.
pub const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The least severe level shown.
    pub level: Level,
    /// One JSON object a line instead of text.
    pub json: bool,
    pub target: LogTarget,
}

/// Of the whole process, as the log is.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    writer: LogWriter,
    is_on_stderr: bool,
    levels: Mutex<Levels>,
}

struct Levels {
    configured: Level,
    now: Level,
    /// Places that log ask it once, and again only when it has changed.
    filter: Handle<LevelFilter, Registry>,
}

/// Starts the log for the whole process; a second call changes nothing. Panics are logged too from then on.
///
/// # Errors
/// The thread that writes it can't be started.
pub fn start(settings: LogSettings) -> io::Result<()> {
    let LogSettings { level, json, target } = settings;
    let is_on_stderr = target == LogTarget::Stderr;
    let is_colored = !json && is_on_stderr && io::stderr().is_terminal();
    let is_syslog = matches!(target, LogTarget::Syslog(_));
    // Its lines are few, and the last ones matter if the process is killed: none are gathered.
    let options = LogWriterOptions { thread: "lb-log", title: "the log", gathering: Duration::ZERO, target };
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let levels = Mutex::new(Levels { configured: level, now: level, filter: handle });
    if LOG.set(Log { writer: LogWriter::start(options)?, is_on_stderr, levels }).is_err() {
        return Ok(());
    }
    let lines = fmt::layer()
        .with_target(false)
        .with_ansi(is_colored)
        // It would report errors of the writer, which has none, to standard error directly.
        .log_internal_errors(false)
        .with_writer(EventWriter { severity: Severity::Info, json, is_colored });
    let lines = match (json, is_syslog) {
        (true, _) => lines.json().flatten_event(true).boxed(),
        // Each message of syslog has the time already.
        (false, true) => lines.without_time().boxed(),
        (false, false) => lines.boxed(),
    };
    // Events are kept whatever lines the log shows.
    let events = EventLayer.with_filter(EventLayer::filter());
    // An error means that another log was started before.
    let _ = registry().with(lines.with_filter(filter)).with(events).try_init();
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// What writes the log, once it was started: whatever else goes to standard error then has to go by it.
pub fn writer() -> Option<&'static LogWriter> {
    LOG.get().map(|log| &log.writer)
}

/// Whether whoever looks at standard error sees the log.
pub fn is_on_stderr() -> bool {
    LOG.get().is_none_or(|log| log.is_on_stderr)
}

/// The configuration's level, which ends what was set by hand.
pub fn configure_level(level: Level) {
    change_levels(|levels| (levels.configured, levels.now) = (level, level));
}

/// Shows this level until another configuration is applied.
pub fn set_level(level: Level) {
    change_levels(|levels| levels.now = level);
}

/// The level shown, and the configured one.
pub fn levels() -> (&'static str, &'static str) {
    let Some(log) = LOG.get() else { return ("info", "info") };
    let levels = log.levels.lock().unwrap_or_else(PoisonError::into_inner);
    (name_of(levels.now), name_of(levels.configured))
}

fn change_levels(change: impl FnOnce(&mut Levels)) {
    let Some(log) = LOG.get() else { return };
    let mut levels = log.levels.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut levels);
    // An error means that another log was started before this one.
    let _ = levels.filter.reload(LevelFilter::from_level(levels.now));
}

fn name_of(level: Level) -> &'static str {
    LEVELS.iter().find(|(_, known)| *known == level).map_or("info", |(name, _)| name)
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
#[derive(Clone, Copy)]
struct EventWriter {
    severity: Severity,
    json: bool,
    is_colored: bool,
}

impl MakeWriter<'_> for EventWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> Self {
        let severity = match *event.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Info,
            Level::DEBUG | Level::TRACE => Severity::Debug,
        };
        Self { severity, ..*self }
    }
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
        log.write(self.severity, format!("{line}\n").as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
