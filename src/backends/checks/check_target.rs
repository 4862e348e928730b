//! Where a check goes: the backend's own address, with another port, or one of its own, which may be a name.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::unbounded_channel;

use crate::config::{BackendAddress, HealthCheck, Resolve};
use crate::net::Target;
use crate::tls::ServerName;

use super::super::backend::Backend;
use super::super::discovery::{Discovery, Query};
use super::super::endpoint::{LOCALHOST, server_name};
use super::super::resolver::words_for;
use super::failure::CheckError;

/// Where one check goes.
pub(in crate::backends) struct CheckTarget {
    pub(super) address: Target,
    /// The name that it is known by; `None`: an address.
    name: Option<String>,
    /// Whether it is where clients' connections go too.
    pub(super) is_own: bool,
}

impl CheckTarget {
    /// What a Host header says of it.
    pub(super) fn host(&self) -> String {
        match (&self.name, self.address.ip_and_port()) {
            (Some(name), Some(address)) => format!("{name}:{}", address.port()),
            (None, Some(address)) => address.to_string(),
            // RFC 9110, 7.2 wants a Host, and a path is none.
            (_, None) => LOCALHOST.to_owned(),
        }
    }

    /// What its certificate must be for.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        server_name(self.name.as_deref(), &self.address)
    }
}

/// Finds out where the checks of one backend go. Keeps what a name gave last for as long as its TTL says, and while it
/// can't be resolved.
#[derive(Default)]
pub(in crate::backends) struct Finder {
    known: Option<Known>,
}

/// What a name gave last.
struct Known {
    name: String,
    addresses: Vec<IpAddr>,
    valid_until: Instant,
}

impl Finder {
    /// Where the next check of this backend goes. `resolve` are the pool's settings for names.
    ///
    /// # Errors
    /// Its check has a name that was never resolved so far.
    pub(in crate::backends) async fn find(
        &mut self,
        backend: &Backend,
        check: &HealthCheck,
        resolve: &Resolve,
    ) -> Result<CheckTarget, CheckError> {
        let (place, own) = (backend.check_place(), backend.target());
        let target = |address: Target, name: Option<&String>| CheckTarget {
            is_own: address == *own,
            address,
            name: name.cloned(),
        };
        match &place.address {
            None => Ok(target(check.port.map_or(own.clone(), |port| own.with_port(port.get())), place.host.as_ref())),
            Some(BackendAddress::Address(address)) => Ok(target(address.clone(), None)),
            // The name that gave the backend's address: one of several, perhaps.
            Some(BackendAddress::Name(name, port)) if place.host.as_ref() == Some(name) => {
                Ok(target(own.with_port(*port), Some(name)))
            }
            Some(BackendAddress::Name(name, port)) => {
                let is_like_own = |ip: &IpAddr| own.ip_and_port().is_some_and(|own| own.is_ipv4() == ip.is_ipv4());
                let addresses = self.addresses_of(name, *port, resolve, check.timeout).await?;
                let ip = addresses.iter().find(|ip| is_like_own(ip)).or(addresses.first());
                let ip = ip.ok_or_else(|| CheckError::backend(format!("{name} has no address")))?;
                Ok(target(Target::Tcp(SocketAddr::new(*ip, *port)), Some(name)))
            }
            Some(BackendAddress::Srv(_)) => unreachable!("the configuration refuses a service here"),
        }
    }

    /// `time` is that of the whole check.
    async fn addresses_of(
        &mut self,
        name: &str,
        port: u16,
        resolve: &Resolve,
        time: Duration,
    ) -> Result<&[IpAddr], CheckError> {
        self.known.take_if(|known| known.name != name);
        let now = Instant::now();
        if self.known.as_ref().is_none_or(|known| known.valid_until <= now) {
            // What it gave last has the other half of the time to be asked.
            let limit = if self.known.is_some() { time / 2 } else { time };
            let answer = tokio::time::timeout(limit, look_up(name, port, resolve)).await;
            match answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))) {
                Ok((addresses, valid_until)) => {
                    let valid_until = valid_until.clamp(now + resolve.min_ttl, now + resolve.max_ttl);
                    self.known = Some(Known { name: name.to_owned(), addresses, valid_until });
                }
                Err(reason) if self.known.is_none() => {
                    return Err(CheckError::backend(format!("{name} can't be resolved: {reason}")));
                }
                Err(_) => {}
            }
        }
        Ok(self.known.as_ref().map_or(&[], |known| &known.addresses))
    }
}

async fn look_up(name: &str, port: u16, resolve: &Resolve) -> Result<(Vec<IpAddr>, Instant), String> {
    let (answers, mut received) = unbounded_channel();
    Discovery::new(resolve).look_up(Query::Host(name.to_owned(), port), answers).await;
    let mut last = Err("no answer".to_owned());
    while let Ok((_, answer)) = received.try_recv() {
        last = answer.map_err(|error| words_for(&error));
    }
    let answer = last?;
    let addresses = answer.hosts.into_iter().flat_map(|host| host.v4.into_iter().chain(host.v6)).flatten();
    Ok((addresses.collect(), answer.valid_until.unwrap_or_else(Instant::now)))
}
