//! The state of the pools on its way from one process to the next, as JSON.

use crate::net::PassedSockets;

use super::listen_sockets::SharedSockets;
use super::memory_file;
use super::pools::{CarriedPools, Pools};

/// The name under which the new process looks for it.
const NAME: &str = "state of the pools";

/// `None`: it can't be passed on, which is logged.
pub(super) fn pass(pools: &Pools) -> Option<(String, SharedSockets)> {
    let json = serde_json::to_vec(&pools.carried()).map_err(Into::into);
    match json.and_then(|json| memory_file::pass(NAME, &json)) {
        Ok(passed) => Some(passed),
        Err(error) => {
            tracing::warn!(%error, "the state of backends can't be passed on; the new process learns it anew");
            None
        }
    }
}

/// What the old process has passed on, if it has.
pub(super) fn take(passed: &mut Vec<PassedSockets>) -> CarriedPools {
    let Some(json) = memory_file::take(passed, NAME) else {
        tracing::warn!("the old process passes no state of backends on; drained ones are in use again");
        return CarriedPools::new();
    };
    json.and_then(|json| Ok(serde_json::from_slice(&json)?)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the old process's state of backends can't be read; they begin anew");
        CarriedPools::new()
    })
}
