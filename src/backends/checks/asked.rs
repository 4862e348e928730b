//! Where a check goes: the backend's own address, with another port, or one of its own, which may be a name.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use crate::config::{BackendAddress, HealthCheck, Resolve};
use crate::net::Target;
use crate::tls::ServerName;

use super::super::backend::Backend;
use super::super::discovery::{Discovery, Query};
use super::failure::CheckError;

/// The name of what listens on a unix socket.
const LOCALHOST: &str = "localhost";

/// Where one check goes.
pub(in crate::backends) struct Asked {
    pub(super) target: Target,
    /// The name that it is known by; `None`: an address.
    name: Option<String>,
    /// Whether it is where clients' connections go too.
    pub(super) is_own: bool,
}

impl Asked {
    /// What a Host header says of it.
    pub(super) fn host(&self) -> String {
        match (&self.name, &self.target) {
            (Some(name), Target::Tcp(address)) => format!("{name}:{}", address.port()),
            (None, Target::Tcp(address)) => address.to_string(),
            // RFC 9110, 7.2 wants a Host, and a path is none.
            (_, Target::Unix(_)) => LOCALHOST.to_owned(),
        }
    }

    /// What its certificate must be for.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        let of_address = || match &self.target {
            Target::Tcp(address) => ServerName::IpAddress(address.ip().into()),
            Target::Unix(_) => ServerName::try_from(LOCALHOST).expect("it is a name"),
        };
        let name = self.name.as_ref().and_then(|name| ServerName::try_from(name.clone()).ok());
        name.unwrap_or_else(of_address)
    }
}

/// Finds out where the checks of one backend go. Keeps what a name gave last for as long as its TTL says, and while it
/// can't be resolved.
#[derive(Default)]
pub(in crate::backends) struct Finder {
    discovery: Option<(Resolve, Rc<Discovery>)>,
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
    ) -> Result<Asked, CheckError> {
        let (place, own) = (backend.check_place(), backend.target());
        let asked =
            |target: Target, name: Option<&String>| Asked { is_own: target == *own, target, name: name.cloned() };
        let at = |ip: IpAddr, port: u16| Target::Tcp(SocketAddr::new(ip, port));
        match (&place.address, own) {
            (None, Target::Unix(_)) => Ok(asked(own.clone(), None)),
            (None, Target::Tcp(own)) => {
                Ok(asked(at(own.ip(), check.port.map_or(own.port(), u16::from)), place.host.as_ref()))
            }
            (Some(BackendAddress::Address(target)), _) => Ok(asked(target.clone(), None)),
            // The name that gave the backend's address: one of several, perhaps.
            (Some(BackendAddress::Name(name, port)), Target::Tcp(own)) if place.host.as_ref() == Some(name) => {
                Ok(asked(at(own.ip(), *port), Some(name)))
            }
            (Some(BackendAddress::Name(name, port)), _) => {
                let is_like_own = |ip: &IpAddr| matches!(own, Target::Tcp(own) if own.is_ipv4() == ip.is_ipv4());
                let addresses = self.addresses_of(name, resolve).await?;
                let ip = addresses.iter().find(|ip| is_like_own(ip)).or(addresses.first());
                let ip = ip.ok_or_else(|| CheckError::backend(format!("{name} has no address")))?;
                Ok(asked(at(*ip, *port), Some(name)))
            }
            (Some(BackendAddress::Srv(_)), _) => unreachable!("the configuration refuses a service here"),
        }
    }

    async fn addresses_of(&mut self, name: &str, resolve: &Resolve) -> Result<&[IpAddr], CheckError> {
        let known = self.known.take().filter(|known| known.name == name);
        let now = Instant::now();
        let known = match known {
            Some(known) if now < known.valid_until => known,
            known => match self.look_up(name, resolve).await {
                Ok((addresses, valid_until)) => {
                    let valid_until = valid_until.clamp(now + resolve.min_ttl, now + resolve.max_ttl);
                    Known { name: name.to_owned(), addresses, valid_until }
                }
                Err(reason) => known.ok_or(CheckError::backend(format!("{name} can't be resolved: {reason}")))?,
            },
        };
        Ok(&self.known.insert(known).addresses)
    }

    async fn look_up(&mut self, name: &str, resolve: &Resolve) -> Result<(Vec<IpAddr>, Instant), String> {
        let discovery = match self.discovery.take().filter(|(settings, _)| settings == resolve) {
            Some((_, discovery)) => discovery,
            None => Discovery::new(resolve).map_err(|error| error.to_string())?,
        };
        self.discovery = Some((resolve.clone(), discovery.clone()));
        // The port is the caller's to add.
        let answer = discovery.look_up(Query::Host(name.to_owned(), 0)).await.map_err(|error| error.to_string())?;
        Ok((answer.hosts.into_iter().flat_map(|host| host.addresses.unwrap_or_default()).collect(), answer.valid_until))
    }
}
