//! Which of a listener's clients a pool serves.

use std::time::Duration;

use crate::protocol::client_hello::ServerNamePattern;

/// A pool for some of a listener's clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub clients: RouteClients,
    /// The pool's name.
    pub pool: String,
    /// `None`: it leads to the pool's backends.
    pub to_server_name: Option<ToServerName>,
}

/// A route to the host that the client asks for by its server name; connections are made with the pool's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToServerName {
    /// The port there, not 0.
    pub port: u16,
    /// Whether that host may have an address of this machine or of its links.
    pub allows_local: bool,
}

/// The clients that a route is for. No two routes of a listener are for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteClients {
    /// Those that speak TLS; one of the two conditions there is.
    Tls {
        /// The name that they ask for; `None`: any, or none.
        sni: Option<ServerNamePattern>,
        /// A protocol that they offer, or where the listener ends TLS get; `None`: any, or none.
        alpn: Option<Vec<u8>>,
    },
    /// Those whose first bytes are these, at least one.
    FirstBytes(Vec<u8>),
    /// Those that send nothing for so long.
    Silent(Duration),
}
