//! From an address as configured to those that are bound: of a name, all that it has on this machine now.

use std::io;
use std::net::ToSocketAddrs;
use std::time::Duration;

use crate::config::BindAddress;
use crate::net::{self, ListenAddress};

use super::off_thread::off_thread;

/// A start or a reload waits so long for the addresses of a name, and fails then.
const LONGEST_LOOKUP: Duration = Duration::from_secs(5);

/// The addresses of a name, else the address itself. Safe to cancel.
///
/// # Errors
/// The name has none, or nobody says in time which.
pub(super) async fn addresses_of(address: &BindAddress) -> io::Result<Vec<ListenAddress>> {
    let (host, port) = match address {
        BindAddress::Address(address) => return Ok(vec![address.clone()]),
        BindAddress::Inherited(_) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "only a listener can be inherited"));
        }
        BindAddress::Name(host, port) => (host.clone(), *port),
    };
    // By the system's own resolver, which knows names of this machine from more sources than DNS; and which blocks.
    let look_up = move || Ok((host.as_str(), port).to_socket_addrs()?.collect::<Vec<_>>());
    let mut all = off_thread("lb-lookup", LONGEST_LOOKUP, look_up).await.flatten()?;
    all.sort_unstable();
    all.dedup();
    Ok(all.into_iter().map(ListenAddress::Tcp).collect())
}

/// Those of one name's addresses that can be bound: `localhost` has `::1` also where IPv6 is off. `is_ours`: this
/// process listens on the address's port already, so that only the rest of it can be tried.
///
/// # Errors
/// One is in use, or may not be bound; or none is an address of this machine.
pub(super) fn bindable(
    addresses: Vec<ListenAddress>,
    is_ours: impl Fn(&ListenAddress) -> bool,
) -> io::Result<Vec<ListenAddress>> {
    let mut bindable = Vec::new();
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        let tried = if is_ours(&address) { address.with_port(0) } else { address.clone() };
        match net::check_free(&tried) {
            Ok(()) => bindable.push(address),
            Err(error) if net::is_no_own_address(&error) => {
                tracing::warn!(%address, %error, "not listened on: it is no address of this machine now");
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    if bindable.is_empty() { Err(last) } else { Ok(bindable) }
}
