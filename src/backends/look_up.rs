//! Whether a backend's name means something now, for who checks a configuration.

use tokio::sync::mpsc::unbounded_channel;

use crate::config::{BackendAddress, Resolve};

use super::discovery::{Discovery, Host, Query};
use super::resolver::words_for;

/// Asks for a name once, as its pool would. An address by itself needs no asking. Safe to cancel; only within a
/// runtime of one thread.
///
/// # Errors
/// Why it has no address.
pub async fn look_up(address: &BackendAddress, settings: &Resolve) -> Result<(), String> {
    let query = match address {
        BackendAddress::Address(_) => return Ok(()),
        BackendAddress::Name(host, port) => Query::Host(host.clone(), *port),
        BackendAddress::Srv(service) => Query::Service(service.clone()),
    };
    let (answers, mut received) = unbounded_channel();
    Discovery::new(settings).look_up(query, answers).await;
    let mut last = Err("no answer".to_owned());
    while let Ok((_, answer)) = received.try_recv() {
        last = answer.map_err(|error| words_for(&error));
    }
    let has_address = last?.hosts.iter().any(Host::has_address);
    if has_address { Ok(()) } else { Err("it has no address".to_owned()) }
}
