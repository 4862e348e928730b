//! The access log: one line a connection (a request, in http mode), written off the workers.
//!
//! A worker formats its line and appends it to a bounded buffer, which is locked for the copy alone; another thread
//! writes the buffer out. If that can't keep up, lines are dropped and counted: traffic never waits for a disk.

mod line;
mod writer;

pub use line::{Attempt, Entry, HttpEntry, escaped};
pub use writer::AccessLog;
