//! The environment variables and the standard output of a command.

use std::fmt;
use std::io::{self, Write};

/// An environment variable; an empty one counts as not set.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Prints a line to standard output. Its reader may have gone, as `head` does: that is no failure of ours.
pub(super) fn print_line(text: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}
