//! The access log's lines on their way to its destination.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::config::{LogDestination, LogFormat};
use crate::telemetry::{LogWriter, LogWriterOptions};

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
    writer: LogWriter,
}

impl AccessLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// The file can't be opened, or the thread not started.
    pub fn start(destination: &LogDestination, format: LogFormat) -> io::Result<Self> {
        let destination = destination.clone();
        let writer = LogWriter::start(LogWriterOptions {
            thread: "lb-access-log",
            title: "the access log",
            gathering: GATHERING,
            open: Box::new(move || open(&destination)),
        })?;
        Ok(Self { format, writer })
    }

    /// Logs one connection or request. Waits at most for the copies of other threads' lines.
    pub fn log(&self, entry: &Entry<'_>) {
        // Taken out of the cell and put back below: a plain `Vec` to work with, and no borrow to fail.
        let mut line = LINE.take();
        match self.format {
            LogFormat::Text => entry.write_text(&mut line),
            LogFormat::Json => entry.write_json(&mut line),
        }
        self.writer.write(&line);
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

/// Doesn't go by the standard library's `Stdout`: whoever prints would wait with the writer.
fn open(destination: &LogDestination) -> io::Result<File> {
    match destination {
        LogDestination::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        LogDestination::Stderr => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        LogDestination::File(path) => append_to(path),
    }
}

/// Never waits: a named pipe that nobody has opened for reading yet is opened for both, which fifo(7) allows on Linux.
fn append_to(path: &Path) -> io::Result<File> {
    let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().create(true).append(true).read(is_pipe).custom_flags(flags).open(path)
}
