//! Lines of a log that could not be written.

use std::io;

/// Why lines are lost, and how many.
pub(super) struct LostLines {
    /// The last reason.
    pub(super) error: io::Error,
    pub(super) lines: u64,
}
