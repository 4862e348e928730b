//! A worker's pipes for splicing. They are few, within what the system grants a user, and a connection has one only
//! while it holds bytes. Knows no connection: a lent pipe comes back when it is dropped.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::Pipe;

/// Measured on loopback: with 64 KiB pipes a byte costs half as much again; beyond 1 MiB nothing is gained.
const PIPE_BYTES: usize = 1024 * 1024;
/// pipe(7): an unprivileged user's pipes share this many pages (`pipe-user-pages-soft`); 0: no limit.
const USER_PAGES_FILE: &str = "/proc/sys/fs/pipe-user-pages-soft";
/// Its default, where it can't be read.
const DEFAULT_USER_PAGES: usize = 16_384;
const PAGE_BYTES: usize = 4096;
/// All workers together use one part in this many of the user's pages: other programs of the user may splice too.
const SHARE_OF_USER_PAGES: usize = 2;
/// Pipes of one worker at most: each is 2 descriptors and up to a megabyte of kernel memory.
pub const MAX_PIPES_PER_WORKER: usize = 64;
/// After the system refused a pipe, no other is opened for this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Pipes of one worker, opened as they are needed.
#[derive(Debug)]
pub struct Pipes {
    /// Those that are not lent; all are empty.
    idle: RefCell<Vec<Pipe>>,
    /// How many are open, the lent ones included.
    open: Cell<usize>,
    max: usize,
    /// When the system last refused one.
    refused_at: Cell<Option<Instant>>,
}

impl Pipes {
    /// Opens none yet; the pages of the user are shared by `workers` workers.
    pub fn new(workers: usize) -> Rc<Self> {
        let pages = std::fs::read_to_string(USER_PAGES_FILE).ok().and_then(|text| text.trim().parse().ok());
        let max = match pages.unwrap_or(DEFAULT_USER_PAGES) {
            0 => MAX_PIPES_PER_WORKER,
            pages => pages / SHARE_OF_USER_PAGES / workers / (PIPE_BYTES / PAGE_BYTES),
        };
        Rc::new(Self {
            idle: RefCell::default(),
            open: Cell::new(0),
            max: max.min(MAX_PIPES_PER_WORKER),
            refused_at: Cell::new(None),
        })
    }

    /// Lends an empty pipe; `None`: all are lent, and no other can be opened now.
    pub(super) fn lend(self: &Rc<Self>) -> Option<LentPipe> {
        let idle = self.idle.borrow_mut().pop();
        let pipe = match idle {
            Some(pipe) => pipe,
            None => self.open_one()?,
        };
        Some(LentPipe { pipe: Some(pipe), pipes: self.clone() })
    }

    fn open_one(&self) -> Option<Pipe> {
        let refused_recently = self.refused_at.get().is_some_and(|at| at.elapsed() < RETRY_AFTER);
        if self.open.get() >= self.max || refused_recently {
            return None;
        }
        match Pipe::new(PIPE_BYTES) {
            Ok(pipe) => {
                self.open.set(self.open.get() + 1);
                self.refused_at.set(None);
                Some(pipe)
            }
            Err(error) => {
                tracing::debug!(%error, open = self.open.get(), "no further pipe; copying instead");
                self.refused_at.set(Some(Instant::now()));
                None
            }
        }
    }
}

/// A lent pipe. Dropped empty it can be lent again; dropped with bytes in it, it is closed: the next connection would
/// send them.
#[derive(Debug)]
pub(super) struct LentPipe {
    pipe: Option<Pipe>,
    pipes: Rc<Pipes>,
}

impl Deref for LentPipe {
    type Target = Pipe;

    fn deref(&self) -> &Pipe {
        self.pipe.as_ref().expect("taken only when dropped")
    }
}

impl DerefMut for LentPipe {
    fn deref_mut(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("taken only when dropped")
    }
}

impl Drop for LentPipe {
    fn drop(&mut self) {
        match self.pipe.take() {
            Some(pipe) if pipe.is_empty() => self.pipes.idle.borrow_mut().push(pipe),
            _ => self.pipes.open.set(self.pipes.open.get() - 1),
        }
    }
}
