//! A health check by GET: one request, and the status of the answer.
//!
//! Knows neither the backend's state nor which statuses are good ones. The answer is read as strictly as one to a
//! client.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::ready;

use crate::config::HttpCheck;
use crate::net::{Target, Transport};
use crate::protocol::http1::{BadResponse, HeadLimits, RequestFacts, ResponseHead};

/// Received at once: most heads whole.
const RECEIVED_BYTES: usize = 2048;

/// Why there is no status.
#[derive(Debug)]
pub(super) enum HttpCheckError {
    /// The connection failed.
    Io(io::Error),
    /// The backend ended before its answer had come.
    Closed,
    /// It is no HTTP/1 response, or one that no client would get.
    BadResponse(BadResponse),
    /// No final response came within the bytes that one head may have.
    TooLong,
}

impl fmt::Display for HttpCheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "connection failed: {error}"),
            Self::Closed => f.write_str("closed without an answer"),
            Self::BadResponse(fault) => write!(f, "bad response: {fault}"),
            Self::TooLong => f.write_str("bad response: head too large"),
        }
    }
}

impl From<io::Error> for HttpCheckError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks, and gives the status of the final response. The caller limits the time; safe to cancel.
pub(super) async fn ask(backend: &Transport, target: &Target, check: &HttpCheck) -> Result<u16, HttpCheckError> {
    send(backend, &request(target, check)).await?;
    read_status(backend).await
}

fn request(target: &Target, check: &HttpCheck) -> Vec<u8> {
    let host = check.host.clone().unwrap_or_else(|| match target.ip_and_port() {
        Some(address) => address.to_string(),
        // RFC 9110, 7.2 wants a Host, and a path is none.
        None => "localhost".to_owned(),
    });
    let (path, version) = (&check.path, env!("CARGO_PKG_VERSION"));
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lb/{version}\r\nConnection: close\r\n\r\n").into_bytes()
}

async fn send(backend: &Transport, mut bytes: &[u8]) -> io::Result<()> {
    poll_fn(|cx| {
        while !bytes.is_empty() {
            let sent = ready!(backend.poll_send(cx, bytes))?;
            bytes = &bytes[sent..];
        }
        Ok(()).into()
    })
    .await
}

/// Reads heads up to the first that is final (RFC 9110, 15.2), all of them together within the limit of one.
async fn read_status(backend: &Transport) -> Result<u16, HttpCheckError> {
    let limits = HeadLimits::default();
    let mut received = Vec::new();
    let mut begin = 0;
    while received.len() < limits.max_head_bytes {
        let before = received.len();
        receive(backend, &mut received).await?;
        // A head may be complete, or wrong, where a line is; and one that is none at all shows that at its first bytes.
        // Between these it isn't read again: a backend that sends byte by byte would be read anew for each.
        if before > begin && !received[before..].contains(&b'\n') {
            continue;
        }
        let ask = RequestFacts { head: false, upgrade: false };
        while let Some(head) =
            ResponseHead::parse(&received[begin..], ask, &limits).map_err(HttpCheckError::BadResponse)?
        {
            if !head.is_interim() {
                return Ok(head.status);
            }
            begin += head.len;
        }
    }
    Err(HttpCheckError::TooLong)
}

async fn receive(backend: &Transport, received: &mut Vec<u8>) -> Result<(), HttpCheckError> {
    let mut buffer = [0; RECEIVED_BYTES];
    match poll_fn(|cx| backend.poll_receive(cx, &mut buffer)).await? {
        0 => Err(HttpCheckError::Closed),
        length => {
            received.extend_from_slice(&buffer[..length]);
            Ok(())
        }
    }
}
