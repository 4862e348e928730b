//! Where moved bytes are counted: on the connection, on its listener, on its backend. Knows nothing of how they moved.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::telemetry::ByteCounters;

/// What one connection moved, readable while it moves.
#[derive(Debug, Default)]
pub struct Tally {
    to_backend: Cell<u64>,
    to_client: Cell<u64>,
    first_to_client: Cell<Option<Instant>>,
    backend_ended_at_once: Cell<bool>,
    /// Seconds from accept until the backend had something to answer: four bytes, which each connection has room for.
    asked_after: Cell<f32>,
}

impl Tally {
    /// Bytes that the backend took from the client.
    pub fn bytes_in(&self) -> u64 {
        self.to_backend.get()
    }

    /// Bytes that the client took from the backend.
    pub fn bytes_out(&self) -> u64 {
        self.to_client.get()
    }

    /// Counts bytes of an answer of our own.
    pub fn answered_by_us(&self, bytes: usize) {
        self.to_client.set(self.to_client.get() + bytes as u64);
    }

    /// Whether the backend ended before it had taken or given a byte, and not after a long silence.
    pub fn backend_ended_at_once(&self) -> bool {
        self.backend_ended_at_once.get()
    }

    pub(super) fn note_end_at_once(&self) {
        self.backend_ended_at_once.set(true);
    }

    pub fn note_asked(&self, after_accept: Duration) {
        self.asked_after.set(after_accept.as_secs_f32());
    }

    /// How long after the accept the backend had something to answer.
    pub fn asked_after(&self) -> Duration {
        Duration::from_secs_f32(self.asked_after.get())
    }

    /// The next byte to the client is a first one: in http mode, of another answer.
    pub fn await_first_byte(&self) {
        self.first_to_client.set(None);
    }

    /// When the client took the backend's first byte.
    pub fn first_byte(&self) -> Option<Instant> {
        self.first_to_client.get()
    }
}

/// Where the bytes of one connection are counted: it borrows all of it.
pub struct Meter<'a> {
    /// The connection's own.
    pub tally: &'a Tally,
    /// Those of its listener, on this worker.
    pub listener: &'a ByteCounters,
    /// Those of its backend, on this worker.
    pub backend: &'a ByteCounters,
    /// Called once for each side.
    pub on_first_byte: &'a dyn Fn(FirstByte),
}

/// The first byte of a side was taken by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstByte {
    /// The client has sent something, to which an answer is expected.
    OfClient,
    /// The backend has answered, at this time.
    OfBackend(Instant),
}

impl Meter<'_> {
    /// Counts bytes that the receiver took.
    pub fn add(&self, direction: Direction, bytes: usize) {
        let (tally, bytes) = (self.tally, bytes as u64);
        match direction {
            Direction::ToBackend => {
                if tally.to_backend.get() == 0 {
                    (self.on_first_byte)(FirstByte::OfClient);
                }
                tally.to_backend.set(tally.to_backend.get() + bytes);
                self.listener.add_in(bytes);
                self.backend.add_in(bytes);
            }
            Direction::ToClient => {
                if tally.first_to_client.get().is_none() {
                    let now = Instant::now();
                    tally.first_to_client.set(Some(now));
                    (self.on_first_byte)(FirstByte::OfBackend(now));
                }
                tally.to_client.set(tally.to_client.get() + bytes);
                self.listener.add_out(bytes);
                self.backend.add_out(bytes);
            }
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    ToBackend,
    /// From the backend to the client.
    ToClient,
}
