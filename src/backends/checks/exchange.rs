//! A check of what the user wrote: sends and expects, in order, on one connection.
//!
//! Answers may come in any pieces. An expectation looks at what came after the match of the one before.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::config::{Pattern, Step};

use super::failure::{CheckError, shown};
use super::stream::CheckStream;

/// What one expectation looks at; a backend that sends more has failed.
const MAX_ANSWER: usize = 64 * 1024;

/// A backend that sends byte by byte is looked at once in this time: to compare after each byte would take the longer
/// the more has come.
const PACE: Duration = Duration::from_millis(1);

/// So many bytes of a line must be as expected for the line to be what was meant.
const MIN_LIKENESS: usize = 3;

/// Goes through the steps. What was received is part of the reason also where the time is over.
pub(super) async fn check(stream: &mut CheckStream, steps: &[Step], deadline: Instant) -> Result<(), CheckError> {
    let mut received = Vec::new();
    for step in steps {
        match step {
            Step::Send(secret) => {
                stream.write_all(&secret.bytes).await?;
                // TLS may have kept some.
                stream.flush().await?;
            }
            Step::Expect(pattern) => match expect(stream, pattern, &mut received, deadline).await {
                Ok(end) => drop(received.drain(..end)),
                Err(what) => return Err(unexpected(pattern, &without_secrets(steps, &received), &what)),
            },
        }
    }
    Ok(())
}

/// Waits for a match, and gives the place of its end in `received`; or says what came after these bytes.
async fn expect(
    stream: &mut CheckStream,
    pattern: &Pattern,
    received: &mut Vec<u8>,
    deadline: Instant,
) -> Result<usize, String> {
    loop {
        if let Some(end) = pattern.end_in(received) {
            return Ok(end);
        }
        if received.len() >= MAX_ANSWER {
            return Err(" and more".to_owned());
        }
        // This side knows what was expected, and so is the first to say that the time is over.
        match tokio::time::timeout_at(deadline - PACE, receive(stream, received)).await {
            Ok(Ok(0)) => return Err(" and the end of the connection".to_owned()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(format!("; {}", CheckError::from(error).reason())),
            Err(_) => return Err(String::new()),
        }
    }
}

fn unexpected(pattern: &Pattern, received: &[u8], then: &str) -> CheckError {
    let got = shown(line_like(pattern, received).unwrap_or(received));
    CheckError::backend(format!("expected {pattern}, got {got}{then}"))
}

fn without_secrets(steps: &[Step], received: &[u8]) -> Vec<u8> {
    let sent = steps.iter().filter_map(|step| if let Step::Send(secret) = step { Some(secret) } else { None });
    sent.fold(received.to_vec(), |received, secret| secret.hide_in(&received))
}

async fn receive(stream: &mut CheckStream, received: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    if !received.is_empty() {
        tokio::time::sleep(PACE).await;
    }
    let length = stream.read(&mut buffer).await?;
    received.extend_from_slice(&buffer[..length]);
    Ok(length)
}

/// The line that begins most like the expected text: `role:slave` where `role:master` was expected.
fn line_like<'a>(pattern: &Pattern, received: &'a [u8]) -> Option<&'a [u8]> {
    let Pattern::Text { bytes, .. } = pattern else { return None };
    let likeness = |line: &[u8]| line.iter().zip(bytes).take_while(|(one, other)| one == other).count();
    let lines = received.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.max_by_key(|line| likeness(line)).filter(|line| likeness(line) >= MIN_LIKENESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_was_meant_is_the_one_that_begins_like_it() {
        let role = Pattern::Text { bytes: b"role:master".to_vec(), written: "role:master".to_owned() };
        let info = b"# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nrepl:1\r\n";
        assert_eq!(line_like(&role, info), Some(&b"role:slave"[..]));
        assert_eq!(line_like(&role, b"-NOAUTH\r\n"), None);
    }
}
