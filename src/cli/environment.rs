//! A command's environment variables and standard output.

use std::fmt;
use std::io::{self, Write};

/// An environment variable; an empty one counts as not set.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The names of all environment variables that are set.
pub(super) fn variable_names() -> impl Iterator<Item = String> {
    std::env::vars_os().filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.into_string().ok())
}

/// Prints a line to standard output. That its reader has gone, as `head` does, is not a failure of the command.
pub(super) fn print_line(text: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}
