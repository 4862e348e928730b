//! The access log's lines on their way to its destination.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use crate::config::{AccessFormat, LogFormat};
use crate::telemetry::{LogTarget, LogWriter, LogWriterOptions, Severity};

use super::line::Entry;

/// To write each line by itself cost a wake-up and a system call for every line, a third of the cost of a small HTTP
/// request.
const GATHERING: Duration = Duration::from_millis(10);

/// The memory for one line that its thread keeps for the next one. A longer line is seldom.
const LINE_BYTES: usize = 4 * 1024;

thread_local! {
    /// Where this thread formats its lines: outside the writer's lock, so that no other one waits for it.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Takes lines from any thread.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    /// In place of what `format` alone gives.
    template: Option<AccessFormat>,
    writer: LogWriter,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file can't be opened, or the thread not started.
    pub fn start(target: LogTarget, format: LogFormat, template: Option<AccessFormat>) -> io::Result<Self> {
        let writer = LogWriter::start(LogWriterOptions {
            thread: "lb-access-log",
            title: "the access log",
            gathering: GATHERING,
            target,
        })?;
        Ok(Self { format, template, writer })
    }

    /// The headers of requests that its lines show, by their names in lower case.
    pub fn headers(&self) -> &[String] {
        self.template.as_ref().map_or(&[], |template| &template.headers)
    }

    /// Logs one connection or request. Waits at most for the copies of other threads' lines.
    pub fn log(&self, entry: &Entry<'_>) {
        // Taken out of the cell and put back below: a plain `Vec` to work with, and no borrow to fail.
        let mut line = LINE.take();
        match (&self.template, self.format) {
            (Some(template), format) => entry.write_format(template, format == LogFormat::Json, &mut line),
            (None, LogFormat::Text) => entry.write_text(&mut line),
            (None, LogFormat::Json) => entry.write_json(&mut line),
        }
        self.writer.write(Severity::Info, &line);
        line.clear();
        line.shrink_to(LINE_BYTES);
        LINE.set(line);
    }

    /// Opens the file again, which a log rotation may have renamed. Lines that wait go into the new one.
    pub fn reopen(&self) {
        self.writer.reopen();
    }

    /// Waits until every line is written, for at most `limit`; `false`: some are not. Blocks the thread.
    pub fn flush(&self, limit: Duration) -> bool {
        self.writer.flush(limit)
    }

    /// Lines that were lost so far.
    pub fn lost(&self) -> u64 {
        self.writer.lost()
    }
}
