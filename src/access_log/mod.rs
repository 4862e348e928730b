//! The access log: one line a connection (a request, in http mode), written off the workers.
//!
//! A worker formats its line and leaves it to a `LogWriter`: traffic never waits for a reader or a disk.

mod line;
mod log;
mod template;

pub use line::{Attempt, Entry, HttpEntry, TlsEntry};
pub use log::AccessLog;
