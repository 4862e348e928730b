//! The history on its way from one process to the next.

use crate::admin::History;
use crate::net::PassedSockets;

use super::listen_sockets::SharedSockets;
use super::memory_file;

/// The name under which the new process looks for it.
const NAME: &str = "history";

/// `None`: it can't be passed on, which is logged.
pub(super) fn pass(history: &History) -> Option<(String, SharedSockets)> {
    let passed = memory_file::pass(NAME, &history.carried());
    passed.inspect_err(|error| tracing::warn!(%error, "the history can't be passed on; it begins anew")).ok()
}

/// What the old process has passed on, or an empty one.
pub(super) fn take(passed: &mut Vec<PassedSockets>) -> History {
    let history = History::default();
    if let Some(content) = memory_file::take(passed, NAME)
        && let Err(error) = content.and_then(|content| history.carry_on(&content))
    {
        tracing::warn!(%error, "the old process's history can't be read; it begins anew");
    }
    history
}
