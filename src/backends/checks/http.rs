//! A check by HTTP/1.1: one request, the status of the answer, and perhaps what its body holds.
//!
//! The answer is read as strictly as one to a client.

use std::ops::RangeInclusive;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::{HttpCheck, Pattern};
use crate::protocol::http1::{Body, HeadLimits, Passes, RequestFacts, ResponseHead};

use super::failure::{CheckError, shown};
use super::stream::CheckStream;

/// Received at once: most heads whole.
const RECEIVED_BYTES: usize = 2048;

/// Bytes of a body that are looked at.
const MAX_BODY: usize = 64 * 1024;

/// Asks, and compares.
pub(super) async fn check(stream: &mut CheckStream, check: &HttpCheck, host: &str) -> Result<(), CheckError> {
    stream.write_all(&request(check, host)).await?;
    let mut received = Vec::new();
    let (begin, head) = read_head(stream, &mut received, check).await?;
    let is_in = |ranges: &[RangeInclusive<u16>]| ranges.iter().any(|range| range.contains(&head.status));
    if !is_in(&check.status) {
        let reason = format!("{} {} answered {}", check.method, check.path, head.status);
        let is_standby = is_in(&check.standby_status);
        return Err(if is_standby { CheckError::Standby(reason) } else { CheckError::backend(reason) });
    }
    let Some(pattern) = &check.body else { return Ok(()) };
    let body = read_body(stream, &received[begin + head.len..], &head, pattern).await?;
    if pattern.end_in(&body).is_some() {
        return Ok(());
    }
    let body = check.headers.iter().fold(body, |body, (_, value)| value.hide_in(&body));
    let (method, path) = (&check.method, &check.path);
    Err(CheckError::backend(format!("{method} {path}: expected {pattern} in the body, got {}", shown(&body))))
}

fn request(check: &HttpCheck, host: &str) -> Vec<u8> {
    let HttpCheck { method, path, .. } = check;
    let (host, version) = (check.host.as_deref().unwrap_or(host), env!("CARGO_PKG_VERSION"));
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
    if !check.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        request.extend_from_slice(format!("User-Agent: lb/{version}\r\n").as_bytes());
    }
    for (name, value) in &check.headers {
        for part in [name.as_bytes(), b": ", &value.bytes, b"\r\n"] {
            request.extend_from_slice(part);
        }
    }
    request.extend_from_slice(b"Connection: close\r\n\r\n");
    request
}

/// Reads heads up to the first that is final (RFC 9110, 15.2), all of them together within the limit of one. Gives its
/// place in `received`.
async fn read_head(
    stream: &mut CheckStream,
    received: &mut Vec<u8>,
    check: &HttpCheck,
) -> Result<(usize, ResponseHead), CheckError> {
    let limits = HeadLimits::default();
    let asked = RequestFacts { head: check.method == "HEAD", upgrade: false };
    let mut begin = 0;
    while received.len() < limits.max_head_bytes {
        let before = received.len();
        if receive(stream, received).await? == 0 {
            return Err(CheckError::backend("closed without an answer"));
        }
        // A head may be complete, or wrong, where a line is; and one that is none at all shows that at its first bytes.
        // Between these it isn't read again: a backend that sends byte by byte would be read anew for each.
        if before > begin && !received[before..].contains(&b'\n') {
            continue;
        }
        let parse = |from: usize| ResponseHead::parse(&received[from..], asked, &limits);
        while let Some(head) = parse(begin).map_err(|fault| CheckError::backend(format!("bad response: {fault}")))? {
            if !head.is_interim() {
                return Ok((begin, head));
            }
            begin += head.len;
        }
    }
    Err(CheckError::backend("bad response: head too large"))
}

/// Reads the body, without its coding, to its end or its limit: a match of what has come may be none of the whole.
async fn read_body(
    stream: &mut CheckStream,
    begun: &[u8],
    head: &ResponseHead,
    pattern: &Pattern,
) -> Result<Vec<u8>, CheckError> {
    let mut framing = Body::new(head.framing, Passes::Data);
    let (mut body, mut received) = (Vec::new(), begun.to_vec());
    loop {
        let next = framing.advance(&received);
        let next = next.map_err(|_| CheckError::backend("bad response: its body breaks the chunked coding"))?;
        body.extend_from_slice(&next.passed);
        body.truncate(MAX_BODY);
        if framing.is_done() || body.len() == MAX_BODY {
            return Ok(body);
        }
        received.clear();
        if receive(stream, &mut received).await? == 0 {
            // What was wanted may have come before the cut.
            let is_enough = framing.is_whole_at_close() || pattern.end_in(&body).is_some();
            return if is_enough { Ok(body) } else { Err(CheckError::backend("closed before the end of its body")) };
        }
    }
}

async fn receive(stream: &mut CheckStream, received: &mut Vec<u8>) -> Result<usize, CheckError> {
    let mut buffer = [0; RECEIVED_BYTES];
    let length = stream.read(&mut buffer).await?;
    received.extend_from_slice(&buffer[..length]);
    Ok(length)
}
