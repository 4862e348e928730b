//! The file of the bearer token that changes need, read alike by the server that checks it and the command that sends
//! it.

use std::io;
use std::path::Path;

/// Reads a token from a file, which has it as its only line.
///
/// # Errors
/// The file can't be read, or its content could not be sent in a header.
pub fn read_token(file: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(file)?;
    let problem = match text.trim() {
        "" => "it is empty",
        token if token.chars().any(char::is_control) => "it has more than one line, or a control character",
        token => return Ok(token.to_owned()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, problem))
}
