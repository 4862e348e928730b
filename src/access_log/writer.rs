//! From the workers' lines to a file: a bounded buffer, and a thread that writes it out.

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

/// Lines that wait to be written; at 200 bytes a line, 40,000 of them. Beyond that they are dropped.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Lines are gathered for so long before they are written. Writing each by itself cost a wake-up and a call a line, a
/// third of what a small HTTP request costs.
const GATHERED_FOR: Duration = Duration::from_millis(10);

/// Of the memory for one line, so much stays with its thread for the next.
const LINE_BYTES: usize = 4 * 1024;

thread_local! {
    /// Where a line is formatted, so that nobody waits for that.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Takes lines from any thread. Dropping it writes the lines that it has and waits for that, however long the
/// destination takes.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Pending>,
    filled: Condvar,
    dropped: AtomicU64,
}

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
        let queue = Arc::new(Queue::default());
        let (writers, destination) = (queue.clone(), destination.clone());
        let writer = thread::Builder::new()
            .name("lb-access-log".to_owned())
            .spawn(move || writers.drain_into(sink, &destination))?;
        Ok(Self { format, queue, writer: Some(writer) })
    }

    /// Logs one connection or request. Waits for nothing but the copies of other lines.
    pub fn log(&self, entry: &Entry<'_>) {
        let mut line = LINE.take();
        match self.format {
            LogFormat::Text => entry.write_text(&mut line),
            LogFormat::Json => entry.write_json(&mut line),
        }
        self.queue.append(&line);
        line.clear();
        line.shrink_to(LINE_BYTES);
        LINE.set(line);
    }

    /// Opens the file again, which a log rotation may have renamed. Lines that wait go into the new one.
    pub fn reopen(&self) {
        self.queue.lock().reopen = true;
        self.queue.filled.notify_one();
    }

    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.filled.notify_one();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was reported by the panic hook.
            let _ = writer.join();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn drain_into(&self, mut sink: Box<dyn Write>, destination: &LogDestination) {
        let mut batch = Vec::new();
        let mut is_failing = false;
        loop {
            let waiting = self.lock();
            let mut state = self
                .filled
                .wait_while(waiting, |state| state.bytes.is_empty() && !state.closed && !state.reopen)
                .unwrap_or_else(PoisonError::into_inner);
            // More lines come: while some wait, no worker has to wake this thread, and one write takes them all.
            let gathered = self.filled.wait_timeout_while(state, GATHERED_FOR, |state| !state.closed && !state.reopen);
            (state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            if std::mem::take(&mut state.reopen) {
                drop(state);
                match open(destination) {
                    Ok(fresh) => sink = fresh,
                    Err(error) => {
                        tracing::error!(%error, "the access log can't be opened again; the old file stays in use");
                    }
                }
                continue;
            }
            if state.bytes.is_empty() {
                return;
            }
            std::mem::swap(&mut batch, &mut state.bytes);
            drop(state);
            match sink.write_all(&batch).and_then(|()| sink.flush()) {
                Ok(()) => is_failing = false,
                Err(error) => {
                    let lines = batch.iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.dropped.fetch_add(lines, Ordering::Relaxed);
                    if !is_failing {
                        tracing::error!(%error, "the access log can't be written; lines are dropped and counted");
                    }
                    is_failing = true;
                }
            }
            batch.clear();
        }
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
