//! What the API orders of backends, in one order for all who order: each is told what came of it.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use crate::backends::{Backend, Order, Refusal};
use crate::config::BackendConfig;

use super::own_backends::warn_of_own_backends;
use super::server_state::ServerState;

/// In place of a pool's name: all of them.
const ALL_POOLS: &str = "*";

/// Adds an entry of `backends` to a pool, and gives the backends that it stands for so far.
///
/// # Errors
/// There is no such pool, the entry breaks a rule, or the pool can't take it.
pub(super) async fn add(
    state: &ServerState,
    pool: &str,
    entry: &Value,
    by: &str,
) -> Result<Vec<Arc<Backend>>, Refusal> {
    let pools = state.running.pools();
    let running = pools.find(pool).ok_or_else(|| pools.unknown(pool))?;
    let settings = running.upstream.pool().settings();
    let invalid = |problems: crate::config::Problems| Refusal::Invalid(problems.to_string());
    let entry = BackendConfig::from_json(entry, &settings).map_err(invalid)?;
    drop(settings);
    if let Some(why) = state.config.loop_by(pool, &entry) {
        return Err(Refusal::Invalid(format!("{} {why}", entry.address)));
    }
    running.membership.add(&entry, by, Instant::now())?;
    running.answered().await;
    warn_of_own_backends(&state.config.listeners, pools, &state.running.listen_sockets);
    Ok(running.membership.backends_of(&entry.address))
}

/// Carries out an order about the backends that `address` stands for, in a pool or in all of them, and gives them.
///
/// # Errors
/// There is none of them, or the order can't be carried out; in other pools it may have been.
pub(super) fn steer(
    state: &ServerState,
    pool: &str,
    address: &str,
    order: Order,
    by: &str,
) -> Result<Vec<Arc<Backend>>, Refusal> {
    let pools = state.running.pools();
    if pool != ALL_POOLS {
        return pools.find(pool).ok_or_else(|| pools.unknown(pool))?.steer(address, order, by);
    }
    let mut concerned = Vec::new();
    for running in pools.running().filter(|running| running.membership.has(address)) {
        concerned.extend(running.steer(address, order, by)?);
    }
    if concerned.is_empty() {
        Err(Refusal::NotFound(format!("no pool has a backend {address}")))
    } else {
        Ok(concerned)
    }
}
