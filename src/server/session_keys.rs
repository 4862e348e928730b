//! The keys by which clients resume their TLS sessions, on their way from one process to the next: each listener's in a
//! pipe, which is passed like a socket. They are written nowhere else.

use std::io::{self, PipeReader, Read, Write};
use std::sync::Arc;

use crate::tls;

use super::listen_sockets::{ListenSockets, SharedSockets};

/// Much less than a pipe holds, and more than they have.
const MAX_BYTES: u64 = 4096;

/// Those of a listener, under the name by which the new process looks for them.
pub(super) fn pass(listener: &str, tls: &tls::Server) -> io::Result<(String, SharedSockets)> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(&tls.hand_on_sessions())?;
    Ok((name_of(listener), Arc::new(vec![reader.into()])))
}

/// Takes those that the old process has passed, if it has.
pub(super) fn take(listener: &str, tls: &tls::Server, passed: &mut ListenSockets) {
    let Some(pipe) = passed.take_passed(&name_of(listener)) else { return };
    let mut keys = Vec::new();
    match PipeReader::from(pipe).take(MAX_BYTES).read_to_end(&mut keys) {
        Ok(_) => tls.continue_sessions(&keys),
        // Clients begin new sessions.
        Err(error) => tracing::warn!(listener, %error, "the keys of TLS sessions could not be taken over"),
    }
}

fn name_of(listener: &str) -> String {
    format!("TLS session keys of {listener}")
}
