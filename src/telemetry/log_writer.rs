//! Writes lines from a thread of its own: whoever has a line never waits for its reader or a disk.
//!
//! The program's log, the access log and `lb demo` write by it. Knows nothing of what the lines say.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::log_sink::{Sink, count_lines};
use super::log_target::LogTarget;
use super::lost_lines::LostLines;
use super::syslog::{Header, Severity};

/// Lines beyond this are lost; at 200 bytes each, 40,000 can wait to be written.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// What a header of syslog takes, about.
const HEADER_BYTES: usize = 128;

/// A buffer keeps so much memory for the next lines: what 10 ms of a hundred thousand lines a second take.
const KEPT_BYTES: usize = 256 * 1024;

/// A file that was removed is looked for again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// After a failure that was told no other one is told for so long, twice as long with each.
const SHORTEST_QUIET: Duration = Duration::from_secs(1);
const LONGEST_QUIET: Duration = Duration::from_secs(60);

/// Opens what is written to, at the start and when it is to be opened again.
pub type Open = Box<dyn Fn() -> io::Result<Sink> + Send>;

/// What a writer is started with.
pub struct LogWriterOptions {
    /// Of its thread; at most 15 bytes (pthread_setname_np(3)).
    pub thread: &'static str,
    /// What messages about it call it, such as `the access log`.
    pub title: &'static str,
    /// Lines are gathered for this long and then written together.
    pub gathering: Duration,
    pub target: LogTarget,
}

/// Takes lines from any thread. After its drop, the thread writes what it has, and ends.
#[derive(Debug)]
pub struct LogWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    title: &'static str,
    gathering: Duration,
    /// What each line begins with; `None`: nothing.
    header: Option<Header>,
    pending: Mutex<Pending>,
    /// Notified when the thread has something to do: at the first line, a flush, a reopen, and the close.
    wanted: Condvar,
    /// Notified when everything is written.
    written: Condvar,
    lost: AtomicU64,
}

/// What the thread has to do.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Lines were taken out of `bytes`, and are not written yet.
    is_writing: bool,
    /// Somebody waits until everything is written.
    is_flushing: bool,
    closed: bool,
    /// The file is to be opened again before the next line.
    reopen: bool,
}

impl LogWriter {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// The file can't be opened, or the thread not started.
    pub fn start(options: LogWriterOptions) -> io::Result<Self> {
        let LogWriterOptions { thread, title, gathering, target } = options;
        let header = match &target {
            LogTarget::Syslog(target) => Some(Header::new(target, thread.trim_start_matches("lb-"))),
            LogTarget::Stdout | LogTarget::Stderr | LogTarget::File(_) => None,
        };
        Self::start_on(thread, title, gathering, header, Box::new(move || target.open()))
    }

    fn start_on(
        thread: &str,
        title: &'static str,
        gathering: Duration,
        header: Option<Header>,
        open: Open,
    ) -> io::Result<Self> {
        let sink = open()?;
        let shared = Arc::new(Shared {
            title,
            gathering,
            header,
            pending: Mutex::default(),
            wanted: Condvar::new(),
            written: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let of_thread = shared.clone();
        thread::Builder::new().name(thread.to_owned()).spawn(move || of_thread.write_out(sink, &open))?;
        Ok(Self(shared))
    }

    /// Takes a line, which ends with a newline. Waits at most for the copies of other threads' lines.
    pub fn write(&self, severity: Severity, line: &[u8]) {
        let Some(header) = &self.0.header else { return self.take(line) };
        let mut message = Vec::with_capacity(HEADER_BYTES + line.len());
        header.write(severity, &mut message);
        message.extend_from_slice(line);
        self.take(&message);
    }

    fn take(&self, line: &[u8]) {
        let mut pending = self.0.lock();
        if pending.bytes.len() >= BUFFER_BYTES {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = pending.bytes.is_empty();
        pending.bytes.extend_from_slice(line);
        drop(pending);
        // Later lines find the thread gathering already.
        if was_empty {
            self.0.wanted.notify_one();
        }
    }

    /// Waits until every line is written, for at most `limit`; `false`: some are not. Blocks the thread.
    pub fn flush(&self, limit: Duration) -> bool {
        let mut pending = self.0.lock();
        pending.is_flushing = true;
        self.0.wanted.notify_one();
        let deadline = Instant::now() + limit;
        while pending.has_lines() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            pending = self.0.written.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        pending.is_flushing = false;
        !pending.has_lines()
    }

    /// Opens the file again, which a log rotation may have renamed. Lines that wait go into the new one.
    pub fn reopen(&self) {
        self.0.lock().reopen = true;
        self.0.wanted.notify_one();
    }

    /// Lines that were lost so far: there was no room for them, or they could not be written.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wanted.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // No panic can leave it half changed.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: ends once the writer is dropped and everything is written.
    fn write_out(&self, mut sink: Sink, open: &Open) {
        let (mut batch, mut told, mut trouble) = (Vec::new(), 0, Trouble::default());
        let mut looked_at: Option<Instant> = None;
        loop {
            let mut pending = self.wait_for_work();
            if std::mem::take(&mut pending.reopen) {
                drop(pending);
                match open() {
                    Ok(fresh) => sink = fresh,
                    Err(error) => {
                        tracing::error!(%error, "{} can't be opened again; the old file stays in use", self.title);
                    }
                }
                continue;
            }
            if pending.bytes.is_empty() {
                // It is closed: `wait_for_work` returns for nothing else.
                return;
            }
            // The lock is held for a swap, not for the write; the two buffers are used in turn.
            std::mem::swap(&mut batch, &mut pending.bytes);
            pending.is_writing = true;
            drop(pending);
            if sink.is_removed() && looked_at.is_none_or(|at| at.elapsed() >= RETRY) {
                looked_at = Some(Instant::now());
                if let Ok(fresh) = open() {
                    sink = fresh;
                }
            }
            let result = match sink.is_removed() {
                true => Err(LostLines { error: io::Error::other("the file was removed"), lines: count_lines(&batch) }),
                false => sink.write(&batch),
            };
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
            if let Err(lost) = &result {
                self.lost.fetch_add(lost.lines, Ordering::Relaxed);
            }
            self.lock().is_writing = false;
            self.written.notify_all();
            match result {
                Ok(()) if trouble.is_over() => self.tell_loss(&mut told),
                Err(LostLines { error, .. }) if trouble.is_new(Instant::now()) => {
                    tracing::error!(%error, "{} can't be written; lines are lost and counted", self.title);
                }
                // The counter has the rest.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Says how many lines were lost before those that were written just now.
    fn tell_loss(&self, told: &mut u64) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > *told {
            tracing::warn!(lines = lost - *told, "{} is written again; lines were lost before", self.title);
            *told = lost;
        }
    }

    /// Waits for the first line, then for others to be written together with it; not longer than to a flush, a reopen
    /// or the close.
    fn wait_for_work(&self) -> MutexGuard<'_, Pending> {
        let is_idle = |pending: &mut Pending| pending.bytes.is_empty() && !pending.closed && !pending.reopen;
        let first = self.wanted.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        let gathered = self.wanted.wait_timeout_while(first, self.gathering, |pending| !pending.is_urgent());
        gathered.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Pending {
    fn has_lines(&self) -> bool {
        self.is_writing || !self.bytes.is_empty()
    }

    /// Whether the thread must not gather more lines first.
    fn is_urgent(&self) -> bool {
        self.is_flushing || self.closed || self.reopen
    }
}

/// Failures to write, of which one in a row is told, and ever fewer where they come and go: of a receiver that isn't
/// there a machine is told only now and then.
#[derive(Default)]
struct Trouble {
    is_there: bool,
    /// Whether it was not told.
    is_untold: bool,
    /// No other is told before.
    quiet_until: Option<Instant>,
    quiet: Duration,
}

impl Trouble {
    /// Whether a failure now is to be told.
    fn is_new(&mut self, now: Instant) -> bool {
        if std::mem::replace(&mut self.is_there, true) {
            return false;
        }
        self.is_untold = self.quiet_until.is_some_and(|until| now < until);
        if !self.is_untold {
            self.quiet = (self.quiet * 2).clamp(SHORTEST_QUIET, LONGEST_QUIET);
            self.quiet_until = Some(now + self.quiet);
        }
        !self.is_untold
    }

    /// It is over: whether what was lost may be told.
    fn is_over(&mut self) -> bool {
        self.is_there = false;
        !std::mem::take(&mut self.is_untold)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    fn writer_to(file: impl Into<OwnedFd>) -> LogWriter {
        let file = File::from(file.into());
        let open: Open = Box::new(move || Sink::file(file.try_clone()?));
        LogWriter::start_on("test", "the test's log", Duration::ZERO, None, open).expect("a thread can be started")
    }

    #[test]
    fn trouble_that_comes_and_goes_is_told_ever_less() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let mut told_at = |second: u64| {
            let told = trouble.is_new(start + Duration::from_secs(second));
            assert!(!trouble.is_new(start + Duration::from_secs(second)), "once in a row");
            assert_eq!(trouble.is_over(), told, "an end that has a beginning");
            told
        };
        let told: Vec<u64> = (0..200).filter(|second| told_at(*second)).collect();
        assert_eq!(told, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        assert!(trouble.is_over(), "what an overflow has lost is told at any time");
    }

    #[test]
    fn a_writer_of_a_line_never_waits_and_what_is_too_much_is_lost_and_counted() {
        let (mut reader, writer) = io::pipe().expect("a pipe can be had");
        let log = writer_to(writer);
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let lines = 3 * BUFFER_BYTES / line.len();
        for _ in 0..lines {
            log.write(Severity::Info, &line);
        }
        assert!(!log.flush(Duration::from_millis(1)), "nobody reads");
        let lost = usize::try_from(log.lost()).expect("a few thousand");
        assert!(lost >= lines / 3, "{lost} of {lines} lines are lost");
        drop(log);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("it is open");
        assert_eq!(read.len(), (lines - lost) * line.len());
    }

    #[test]
    fn a_pipe_that_does_not_block_loses_nothing() {
        let (mut reader, writer) = io::pipe().expect("a pipe can be had");
        rustix::io::ioctl_fionbio(&writer, true).expect("a pipe can be made non-blocking");
        let log = writer_to(writer);
        let text: Vec<u8> = (0..20_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        text.split_inclusive(|byte| *byte == b'\n').for_each(|line| log.write(Severity::Info, line));
        let mut read = vec![0; text.len()];
        reader.read_exact(&mut read).expect("it is open");
        assert!(read == text && log.flush(Duration::from_secs(20)) && log.lost() == 0);
    }
}
