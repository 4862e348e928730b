//! A listener that is its own backend makes a connection of each connection, until files run out. What the texts of a
//! configuration show, `config` refuses; this looks at the addresses that names have, and that this machine has.

use std::net::SocketAddr;

use crate::config::ListenerConfig;
use crate::net;

use super::listen_sockets::{ListenSockets, Listened};
use super::pools::Pools;

/// Warns of each, as the pools are now.
pub(super) fn warn_of_own_backends(listeners: &[ListenerConfig], pools: &Pools, sockets: &ListenSockets) {
    for listener in listeners {
        let listened = sockets.listened(listener);
        let routes = listener.mode.routes().iter().map(|route| &route.pool);
        for pool in listener.pool.iter().chain(routes) {
            for backend in pools.upstream(pool).pool().backends().iter() {
                let Some(target) = backend.target().ip_and_port() else { continue };
                if listened.iter().any(|listened| takes(listened, target)) {
                    tracing::warn!(
                        listener = listener.name,
                        pool,
                        backend = backend.label(),
                        "the backend is the listener itself: each connection makes another one; remove it"
                    );
                }
            }
        }
    }
}

fn takes(listened: &Listened, target: SocketAddr) -> bool {
    let Listened { address, both_families } = listened;
    if address.port() != target.port() {
        return false;
    }
    let takes_all = address.ip().is_unspecified() && (*both_families || address.is_ipv4() == target.is_ipv4());
    address.ip() == target.ip() || takes_all && net::is_own_address(target.ip()).unwrap_or(false)
}
