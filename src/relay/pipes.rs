//! The pipes for splicing: one for each worker, which uses it as its scratch buffer, within one move. None ever holds
//! bytes of a connection that waits, so no client can keep a pipe from the others.

use std::cell::{RefCell, RefMut};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::RelayMode;
use crate::net::Pipe;

/// Measured on loopback: with 64 KiB pipes a byte costs half as much again; beyond 1 MiB nothing is gained.
pub(super) const PIPE_BYTES: usize = 1024 * 1024;
/// A smaller pipe is not worth its system calls.
const LEAST_PIPE_BYTES: usize = 64 * 1024;
/// pipe(7): an unprivileged user's pipes share this many pages (`pipe-user-pages-soft`); 0: no limit.
const USER_PAGES_FILE: &str = "/proc/sys/fs/pipe-user-pages-soft";
/// Its default, where it can't be read.
const DEFAULT_USER_PAGES: usize = 16_384;
const PAGE_BYTES: usize = 4096;
/// All workers together use one part in this many of the user's pages: other programs of the user may splice too.
const SHARE_OF_USER_PAGES: usize = 2;
/// After the system refused a pipe, no other is opened for this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Descriptors of one worker: both ends of its pipe.
pub const PIPE_FILES_PER_WORKER: usize = 2;

/// What all workers' pipes share: one budget of pages, and counts.
#[derive(Debug)]
pub struct Pipes {
    /// How many are wanted.
    wanted: usize,
    /// What each is to hold.
    bytes_each: usize,
    open: AtomicUsize,
    open_bytes: AtomicUsize,
    spliced_bytes: AtomicU64,
    /// It was logged that splice(2) itself is refused.
    is_refusal_logged: AtomicBool,
}

impl Pipes {
    /// Divides what the system grants a user among `workers`. Opens none yet.
    pub fn new(mode: RelayMode, workers: usize) -> Arc<Self> {
        let pages = std::fs::read_to_string(USER_PAGES_FILE).ok().and_then(|text| text.trim().parse().ok());
        Arc::new(Self {
            wanted: if mode == RelayMode::Copy { 0 } else { workers },
            bytes_each: bytes_each(pages.unwrap_or(DEFAULT_USER_PAGES), workers),
            open: AtomicUsize::new(0),
            open_bytes: AtomicUsize::new(0),
            spliced_bytes: AtomicU64::new(0),
            is_refusal_logged: AtomicBool::new(false),
        })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many the system refuses; their workers copy.
    pub fn refused(&self) -> usize {
        self.wanted.saturating_sub(self.open())
    }

    /// What the open ones hold at most, together.
    pub fn open_bytes(&self) -> usize {
        self.open_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that went through them.
    pub fn spliced_bytes(&self) -> u64 {
        self.spliced_bytes.load(Ordering::Relaxed)
    }
}

/// The size of each worker's pipe, so that all stay within the share of the user's `pages`.
fn bytes_each(pages: usize, workers: usize) -> usize {
    if pages == 0 {
        return PIPE_BYTES;
    }
    let share = (pages / SHARE_OF_USER_PAGES / workers.max(1)).saturating_mul(PAGE_BYTES).max(1);
    // The kernel rounds up to a power of two.
    (1 << share.ilog2()).clamp(LEAST_PIPE_BYTES, PIPE_BYTES)
}

/// One worker's pipe.
#[derive(Debug)]
pub struct WorkerPipe {
    slot: RefCell<Slot>,
    all: Arc<Pipes>,
}

#[derive(Debug)]
enum Slot {
    Open(Pipe),
    /// The system refused it, at this time.
    Missing(Instant),
    /// It is not wanted, or splice(2) itself is refused.
    Never,
}

impl WorkerPipe {
    /// Opens it, if it is wanted and granted.
    pub fn open(all: &Arc<Pipes>) -> Self {
        let slot = if all.wanted == 0 { Slot::Never } else { open_one(all) };
        Self { slot: RefCell::new(slot), all: all.clone() }
    }

    /// The empty pipe, for one move; `None`: there is none.
    pub(super) fn borrow(&self) -> Option<RefMut<'_, Pipe>> {
        let mut slot = self.slot.borrow_mut();
        if matches!(&*slot, Slot::Missing(since) if since.elapsed() >= RETRY_AFTER) {
            *slot = open_one(&self.all);
        }
        RefMut::filter_map(slot, |slot| if let Slot::Open(pipe) = slot { Some(pipe) } else { None }).ok()
    }

    /// A move through it has ended. If it left bytes, which the next connection would be sent, the pipe is replaced.
    pub(super) fn give_back(&self, pipe: RefMut<'_, Pipe>, moved: usize) {
        let is_empty = pipe.is_empty();
        drop(pipe);
        self.all.spliced_bytes.fetch_add(moved as u64, Ordering::Relaxed);
        if !is_empty {
            self.close();
            *self.slot.borrow_mut() = open_one(&self.all);
        }
    }

    /// splice(2) is refused here: this worker copies from now on.
    pub(super) fn give_up(&self, error: &io::Error) {
        self.close();
        *self.slot.borrow_mut() = Slot::Never;
        if !self.all.is_refusal_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "splice(2) doesn't work here: bulk is copied, which costs more (relay.mode: copy)");
        }
    }

    fn close(&self) {
        if let Slot::Open(pipe) = self.slot.replace(Slot::Never) {
            self.all.open.fetch_sub(1, Ordering::Relaxed);
            self.all.open_bytes.fetch_sub(pipe.capacity(), Ordering::Relaxed);
        }
    }
}

fn open_one(all: &Pipes) -> Slot {
    match Pipe::new(all.bytes_each, LEAST_PIPE_BYTES) {
        Ok(pipe) => {
            all.open.fetch_add(1, Ordering::Relaxed);
            all.open_bytes.fetch_add(pipe.capacity(), Ordering::Relaxed);
            Slot::Open(pipe)
        }
        Err(error) => {
            tracing::debug!(%error, "no pipe; copying instead");
            Slot::Missing(Instant::now())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_workers_have_smaller_pipes_each_of_them_one() {
        for (workers, kib) in [(1, 1024), (32, 1024), (33, 512), (40, 512), (128, 256), (512, 64), (4096, 64)] {
            assert_eq!(bytes_each(DEFAULT_USER_PAGES, workers), kib * 1024, "{workers}");
        }
        assert_eq!(bytes_each(0, 4096), PIPE_BYTES, "no limit");
        assert_eq!(bytes_each(1, 2), LEAST_PIPE_BYTES);
    }
}
