//! A listener's routes: which pool serves a client, by what it says first, or that it says nothing.
//!
//! Judges bytes that others peek at, and reads no clock: how long a client was silent is for the caller to know.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, RouteClients, ToServerName};
use crate::protocol::client_hello::{self, ClientHello, MAX_HELLO_BYTES, NotClientHello, ServerNamePattern};
use crate::tls::SessionInfo;

use super::upstream::Upstream;

/// By kind, in the order in which they are asked: the first that fits decides.
#[derive(Default)]
pub(super) struct Routes {
    tls: Vec<TlsRoute>,
    /// The longest first.
    first_bytes: Vec<(Vec<u8>, Arc<Upstream>)>,
    silent: Option<(Duration, Arc<Upstream>)>,
}

struct TlsRoute {
    sni: Option<ServerNamePattern>,
    alpn: Option<Vec<u8>>,
    upstream: Arc<Upstream>,
    to_server_name: Option<ToServerName>,
}

/// Where the route of a client leads to.
#[derive(Clone)]
pub(super) struct Way<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    /// The host that it named, where that is where it leads to.
    pub(super) host: Option<NamedHost>,
}

#[derive(Clone)]
pub(super) struct NamedHost {
    pub(super) name: String,
    pub(super) to: ToServerName,
}

impl<'a> From<&'a Arc<Upstream>> for Way<'a> {
    fn from(upstream: &'a Arc<Upstream>) -> Self {
        Self { upstream, host: None }
    }
}

/// What the bytes decide that a client has sent so far.
pub(super) enum Choice<'a> {
    Route(Way<'a>),
    /// No route fits, whatever follows.
    Rest,
    /// More bytes are needed; if none come, `so_far` fits.
    Open {
        so_far: Option<&'a Arc<Upstream>>,
    },
}

impl Routes {
    pub(super) fn new(routes: &[config::Route], upstream_of: &impl Fn(&str) -> Arc<Upstream>) -> Self {
        let mut sorted = Self::default();
        for config::Route { clients, pool, to_server_name } in routes {
            let upstream = upstream_of(pool);
            match clients.clone() {
                RouteClients::Tls { sni, alpn } => {
                    sorted.tls.push(TlsRoute { sni, alpn, upstream, to_server_name: *to_server_name });
                }
                RouteClients::FirstBytes(bytes) => sorted.first_bytes.push((bytes, upstream)),
                RouteClients::Silent(duration) => sorted.silent = Some((duration, upstream)),
            }
        }
        sorted.first_bytes.sort_by_key(|(bytes, _)| Reverse(bytes.len()));
        sorted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tls.is_empty() && self.goes_by_tls_alone()
    }

    /// A client that speaks no TLS is refused then: this is a port for TLS.
    fn goes_by_tls_alone(&self) -> bool {
        self.first_bytes.is_empty() && self.silent.is_none()
    }

    /// By a handshake that the listener has made.
    pub(super) fn of_session(&self, session: &SessionInfo) -> Option<Way<'_>> {
        self.of_tls(session.server_name.as_deref(), |alpn| {
            session.alpn.as_deref().is_some_and(|own| own == alpn).then_some(0)
        })
    }

    fn of_hello(&self, hello: &ClientHello) -> Option<Way<'_>> {
        self.of_tls(hello.server_name.as_deref(), |alpn| hello.protocols().position(|offered| offered == alpn))
    }

    /// The best of those that fit: the name decides, then whether it is for a protocol, then the client's preference,
    /// which `place_of` knows.
    fn of_tls(&self, name: Option<&str>, place_of: impl Fn(&[u8]) -> Option<usize>) -> Option<Way<'_>> {
        let fitting = self.tls.iter().filter_map(|route| {
            let rank = match (&route.sni, name) {
                (None, _) => None,
                (Some(pattern), Some(name)) if pattern.matches(name) => Some(pattern.rank()),
                (Some(_), _) => return None,
            };
            let place = match &route.alpn {
                Some(alpn) => place_of(alpn)?,
                None => usize::MAX,
            };
            Some(((Reverse(rank), place), route))
        });
        let (_, route) = fitting.min_by_key(|(order, _)| *order)?;
        let host = route.to_server_name.zip(name).map(|(to, name)| NamedHost { name: name.to_owned(), to });
        Some(Way { upstream: &route.upstream, host })
    }

    /// How long a client is silent that the route for such clients fits.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.silent.as_ref().map(|(duration, _)| *duration)
    }

    /// For a client of which no more bytes come.
    pub(super) fn of_silence(&self) -> Option<&Arc<Upstream>> {
        self.silent.as_ref().map(|(_, upstream)| upstream)
    }

    /// For the bytes of one client. `is_tls_ended`: they come out of TLS, whose handshake the routes have seen already.
    /// `server_name` is filled in once a ClientHello says it.
    pub(super) fn judge<'n>(&self, is_tls_ended: bool, server_name: &'n OnceCell<String>) -> Judge<'_, 'n> {
        Judge { routes: self, awaits_hello: !self.tls.is_empty() && !is_tls_ended, server_name }
    }
}

/// Judges what a client has sent so far.
pub(super) struct Judge<'a, 'n> {
    routes: &'a Routes,
    awaits_hello: bool,
    server_name: &'n OnceCell<String>,
}

impl<'a> Judge<'a, '_> {
    /// Whether there is anything that bytes, or their lack, can decide.
    pub(super) fn is_needed(&self) -> bool {
        self.awaits_hello || !self.routes.goes_by_tls_alone()
    }

    /// Whether it waits for a ClientHello and nothing else.
    pub(super) fn awaits_hello_alone(&self) -> bool {
        self.awaits_hello && self.routes.goes_by_tls_alone()
    }

    /// So many bytes decide in any case.
    pub(super) fn most_bytes(&self) -> usize {
        let hello = if self.awaits_hello { MAX_HELLO_BYTES } else { 1 };
        self.routes.first_bytes.first().map_or(hello, |(longest, _)| hello.max(longest.len()))
    }

    /// The verdict is the same wherever the network cut the bytes, of which there is at least one.
    ///
    /// # Errors
    /// Only a ClientHello could be, and this is none.
    pub(super) fn judge(&self, bytes: &[u8]) -> Result<Choice<'a>, NotClientHello> {
        if self.awaits_hello {
            match client_hello::parse(bytes) {
                Ok(None) => return Ok(Choice::Open { so_far: None }),
                Ok(Some(hello)) => {
                    if let Some(name) = &hello.server_name {
                        let _ = self.server_name.set(name.clone());
                    }
                    if let Some(way) = self.routes.of_hello(&hello) {
                        return Ok(Choice::Route(way));
                    }
                }
                Err(fault) if self.awaits_hello_alone() => return Err(fault),
                Err(_) => {}
            }
        }
        Ok(self.of_first_bytes(bytes))
    }

    fn of_first_bytes(&self, bytes: &[u8]) -> Choice<'a> {
        let mut may_be_longer = false;
        for (first, upstream) in &self.routes.first_bytes {
            if bytes.starts_with(first) {
                let so_far = Some(upstream);
                return if may_be_longer { Choice::Open { so_far } } else { Choice::Route(upstream.into()) };
            }
            may_be_longer |= first.starts_with(bytes);
        }
        if may_be_longer { Choice::Open { so_far: None } } else { Choice::Rest }
    }
}
