//! The bounded buffer of lines, and the thread that writes it out.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::{LogDestination, LogFormat};

use super::line::Entry;

/// Lines beyond this are dropped; at 200 bytes each, 40,000 can wait to be written.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Lines are gathered for this long and then written together. To write each by itself cost a wake-up and a system call
/// for every line, a third of the cost of a small HTTP request.
const GATHERING: Duration = Duration::from_millis(10);

/// The memory for one line that its thread keeps for the next one. A longer line is seldom.
const LINE_BYTES: usize = 4 * 1024;

thread_local! {
    /// Where this thread formats its lines: outside the lock, so that no other one waits for it.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Takes lines from any thread. Its drop waits until the lines that it has are written, however long the destination
/// takes.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    buffer: Arc<LineBuffer>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct LineBuffer {
    pending: Mutex<Pending>,
    /// Notified when the first line comes, at a reopen and at the close.
    changed: Condvar,
    dropped: AtomicU64,
}

/// What the writer has to do.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    closed: bool,
    /// The file is to be opened again before the next line.
    reopen: bool,
}

impl AccessLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// The file can't be opened, or the thread not started.
    pub fn start(destination: &LogDestination, format: LogFormat) -> io::Result<Self> {
        let sink = open(destination)?;
        let buffer = Arc::new(LineBuffer::default());
        let (for_writer, destination) = (buffer.clone(), destination.clone());
        let writer = thread::Builder::new()
            .name("lb-access-log".to_owned())
            .spawn(move || for_writer.write_out(sink, &destination))?;
        Ok(Self { format, buffer, writer: Some(writer) })
    }

    /// Logs one connection or request. Waits at most for the copies of other threads' lines.
    pub fn log(&self, entry: &Entry<'_>) {
        // Taken out of the cell and put back below: a plain `Vec` to work with, and no borrow to fail.
        let mut line = LINE.take();
        match self.format {
            LogFormat::Text => entry.write_text(&mut line),
            LogFormat::Json => entry.write_json(&mut line),
        }
        self.buffer.append(&line);
        line.clear();
        line.shrink_to(LINE_BYTES);
        LINE.set(line);
    }

    /// Opens the file again, which a log rotation may have renamed. Lines that wait go into the new one.
    pub fn reopen(&self) {
        self.buffer.lock().reopen = true;
        self.buffer.changed.notify_one();
    }

    pub fn dropped(&self) -> u64 {
        self.buffer.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.buffer.lock().closed = true;
        self.buffer.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was reported by the panic hook.
            let _ = writer.join();
        }
    }
}

impl LineBuffer {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // No panic can leave it half changed.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut pending = self.lock();
        if pending.bytes.len() >= BUFFER_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = pending.bytes.is_empty();
        pending.bytes.extend_from_slice(line);
        drop(pending);
        // Later lines find the writer gathering already.
        if was_empty {
            self.changed.notify_one();
        }
    }

    /// The writer: ends once the log is closed and everything is written.
    fn write_out(&self, mut sink: Box<dyn Write>, destination: &LogDestination) {
        let mut batch = Vec::new();
        let mut is_failing = false;
        loop {
            let mut pending = self.wait_for_lines();
            if std::mem::take(&mut pending.reopen) {
                drop(pending);
                match open(destination) {
                    Ok(fresh) => sink = fresh,
                    Err(error) => {
                        tracing::error!(%error, "the access log can't be opened again; the old file stays in use");
                    }
                }
                continue;
            }
            if pending.bytes.is_empty() {
                // It is closed: `wait_for_lines` returns for nothing else.
                return;
            }
            // The lock is held for a swap, not for the write; the two buffers are used in turn.
            std::mem::swap(&mut batch, &mut pending.bytes);
            drop(pending);
            match sink.write_all(&batch).and_then(|()| sink.flush()) {
                Ok(()) => is_failing = false,
                Err(error) => {
                    let lines = batch.iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.dropped.fetch_add(lines, Ordering::Relaxed);
                    // Once for a row of failures: the counter has the rest.
                    if !is_failing {
                        tracing::error!(%error, "the access log can't be written; lines are dropped and counted");
                    }
                    is_failing = true;
                }
            }
            batch.clear();
        }
    }

    /// Waits for the first line, then for others to be written together with it; not longer than to a reopen or close.
    fn wait_for_lines(&self) -> MutexGuard<'_, Pending> {
        let is_idle = |pending: &mut Pending| pending.bytes.is_empty() && !pending.closed && !pending.reopen;
        let pending = self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        let is_gathering = |pending: &mut Pending| !pending.closed && !pending.reopen;
        let gathered = self.changed.wait_timeout_while(pending, GATHERING, is_gathering);
        gathered.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn open(destination: &LogDestination) -> io::Result<Box<dyn Write + Send>> {
    Ok(match destination {
        LogDestination::Stdout => Box::new(io::stdout()),
        LogDestination::Stderr => Box::new(io::stderr()),
        LogDestination::File(path) => Box::new(append_to(path)?),
    })
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
