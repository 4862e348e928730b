//! The access log: one line a connection (a request, in http mode), written off the workers.
//!
//! A worker only appends to a bounded buffer; a thread of its own writes it out. When the writing can't keep up, lines
//! are dropped and counted: traffic never waits for a disk.

mod line;
mod writer;

pub use line::{Attempt, Entry, HttpEntry, escaped};
pub use writer::AccessLog;
