//! Why a check found no answer, in words that say what to look at; and how received bytes are shown in them.

use std::io;

use crate::net::DialError;
use crate::tls;

/// Received bytes that are shown, at most.
const SHOWN_BYTES: usize = 80;

/// Characters of a reason, at most: a server may have much to say.
const MAX_REASON: usize = 300;

/// A check that found no answer, or another one than it wants.
#[derive(Debug)]
pub(in crate::backends) enum CheckError {
    /// It is well, but in another role than the pool needs.
    Standby(String),
    /// That speaks against the backend.
    Backend(String),
    /// This machine had no file or no port for it: it says nothing of the backend.
    Local(String),
}

impl CheckError {
    /// That speaks against the backend. The reason is cut where it is too long.
    pub(in crate::backends) fn backend(reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if let Some((end, _)) = reason.char_indices().nth(MAX_REASON) {
            reason.truncate(end);
            reason.push('…');
        }
        Self::Backend(reason)
    }

    pub(super) fn reason(&self) -> &str {
        let (Self::Standby(reason) | Self::Backend(reason) | Self::Local(reason)) = self;
        reason
    }
}

impl From<DialError> for CheckError {
    fn from(error: DialError) -> Self {
        let reason = error.to_string();
        if error.failure.is_backends_fault() { Self::backend(reason) } else { Self::Local(reason) }
    }
}

impl From<io::Error> for CheckError {
    fn from(error: io::Error) -> Self {
        if let Some(words) = tls::words_for(&error) {
            return Self::backend(words);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::backend("closed without an answer"),
            // Of our own making.
            io::ErrorKind::Other => Self::backend(error.to_string()),
            _ => Self::backend(format!("connection failed: {error}")),
        }
    }
}

/// The first of the received bytes, readable: quoted, and with escapes for what isn't text.
pub(super) fn shown(received: &[u8]) -> String {
    if received.is_empty() {
        return "nothing".to_owned();
    }
    let first = &received[..received.len().min(SHOWN_BYTES)];
    let text = first.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'");
    let more = if first.len() < received.len() { "…" } else { "" };
    format!("`{text}`{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_bytes_are_shown_as_text_and_not_too_many() {
        assert_eq!(shown(b""), "nothing");
        assert_eq!(shown(b"-ERR \"no\"\r\n\x1b[2J"), r#"`-ERR "no"\r\n\x1b[2J`"#);
        assert_eq!(shown(&[b'a'; 100]), format!("`{}`…", "a".repeat(80)));
    }

    #[test]
    fn a_long_reason_is_cut() {
        let CheckError::Backend(reason) = CheckError::backend("ä".repeat(1000)) else { panic!("it is the backend's") };
        assert_eq!(reason, format!("{}…", "ä".repeat(300)));
    }
}
