//! A backend as it is wanted: what the configuration, a name server or an operator says of it.
//!
//! Knows nothing of how it fares.

use std::num::NonZeroUsize;

use crate::config::{BackendAddress, BackendChanges};
use crate::net::Target;
use crate::tls::ServerName;

use super::admin_state::AdminState;

/// The name of what listens on a unix socket.
pub(super) const LOCALHOST: &str = "localhost";

/// A backend as the configuration or a name server wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens; this tells one backend of a pool from another.
    pub target: Target,
    /// Its share of new connections, 0 to 256.
    pub weight: u16,
    /// 0: a primary; a backup is used only when no backend of a lower rank is usable.
    pub rank: u8,
    /// Connections at once.
    pub max_connections: Option<NonZeroUsize>,
    /// When it comes into its pool; later an operator may want otherwise.
    pub admin_state: AdminState,
    pub check: CheckPlace,
}

impl Endpoint {
    /// With the defaults of the file.
    pub fn new(target: Target) -> Self {
        let (admin_state, check) = Default::default();
        Self { target, weight: 1, rank: 0, max_connections: None, admin_state, check }
    }

    /// As an operator wants it.
    pub(super) fn change(&mut self, changes: BackendChanges) {
        self.weight = changes.weight.unwrap_or(self.weight);
        self.rank = changes.rank.unwrap_or(self.rank);
        self.max_connections = changes.max_connections.unwrap_or(self.max_connections);
    }
}

/// What the configuration says of where its health check goes, beside the port of the pool's check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckPlace {
    /// The name that gave its address.
    pub host: Option<String>,
    /// `None`: it goes where the backend listens.
    pub address: Option<BackendAddress>,
}

/// What the certificate of a server must be for that is known by `name`, or else by its address.
pub(super) fn server_name(name: Option<&str>, address: &Target) -> ServerName<'static> {
    let of_address = || match address.ip_and_port() {
        Some(address) => ServerName::IpAddress(address.ip().into()),
        None => ServerName::try_from(LOCALHOST).expect("it is a name"),
    };
    name.and_then(|name| ServerName::try_from(name.to_owned()).ok()).unwrap_or_else(of_address)
}
