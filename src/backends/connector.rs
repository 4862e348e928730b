//! The only way to a backend, for clients' connections and health checks alike: source address, socket options, the
//! header of the PROXY protocol, TLS (which checks make by themselves, where they want it).
//!
//! Doesn't choose the backend, and judges nobody: what a failure says of a backend is for the caller to decide.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::{SourceAddress, TlsTo};
use crate::net::{self, ConnectFailure, DialError, DialOptions, HandshakeError, Purpose, Source, Target, Transport};
use crate::protocol::proxy_header::{self, Header, Origin};
use crate::tls::{self, ServerName, Session};

use super::backend::Backend;
use super::pool::Pool;

/// Connects to the backends of one pool. Shared by all workers and the pool's health checks.
#[derive(Debug)]
pub struct Connector {
    pool: Arc<Pool>,
    /// Whose turn it is among the pool's source addresses.
    next_source: AtomicUsize,
}

/// Whom a backend is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct ConnectingClient {
    /// `None`: it has come by a unix socket.
    pub ip: Option<IpAddr>,
    /// Bytes of it follow at once.
    pub has_asked: bool,
}

impl Connector {
    /// Under the settings that `pool` has at each connect.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool, next_source: AtomicUsize::new(0) }
    }

    /// Connects for a client, within the pool's connect timeout. `header` is called where the pool wants a PROXY header
    /// only: finding it out costs a system call. Safe to cancel.
    ///
    /// # Errors
    /// Why it did not work.
    pub async fn connect<'h>(
        &self,
        backend: &Backend,
        client: ConnectingClient,
        header: impl FnOnce() -> Header<'h>,
    ) -> Result<Transport, DialError> {
        let settings = self.pool.settings();
        let started = Instant::now();
        let speaks_first = client.has_asked || settings.tls.is_some() || self.pool.proxy_version().is_some();
        let purpose = if speaks_first { Purpose::Data } else { Purpose::Talk };
        let source = self.next_source(backend.target(), client.ip);
        let transport = self.dial(backend.target(), source, settings.connect_timeout, purpose).await?;
        let transport = self.begin(transport, header)?;
        if let Some(tls) = &settings.tls {
            let name = tls.server_name.clone().unwrap_or_else(|| backend.server_name());
            let time = settings.connect_timeout.saturating_sub(started.elapsed());
            // Boxed: few pools have it, and every connection would be as large as this.
            Box::pin(shake_hands(&transport, tls, name, time)).await?;
        }
        Ok(transport)
    }

    /// Connects for a health check, which has a time limit as a whole and sets none here. Safe to cancel.
    ///
    /// `is_own`: it goes where clients' connections go too. What listens elsewhere expects no PROXY header.
    ///
    /// # Errors
    /// Why it did not work.
    pub(super) async fn connect_for_check(&self, target: &Target, is_own: bool) -> Result<Transport, DialError> {
        let source = self.next_source(target, None);
        let backend = self.dial(target, source, Duration::MAX, Purpose::Talk).await?;
        // LOCAL: the connection is the balancer's own, and belongs to no client.
        if is_own { self.begin(backend, || Origin::Local.into()) } else { Ok(backend) }
    }

    /// Finds out whether a connection can be made, for a health check that needs no more, and so that the application
    /// sees none: one that ends at once is an error to some (MariaDB refuses the host after a hundred). Only a unix
    /// socket's accept gets it: it has no handshake. Safe to cancel.
    ///
    /// # Errors
    /// Why it can't.
    pub(super) async fn try_connect(&self, target: &Target) -> Result<(), DialError> {
        let source = self.next_source(target, None);
        self.dial(target, source, Duration::MAX, Purpose::Unseen).await.map(drop)
    }

    /// The pool whose backends these are.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    async fn dial(
        &self,
        target: &Target,
        source: Source,
        timeout: Duration,
        purpose: Purpose,
    ) -> Result<Transport, DialError> {
        let options = {
            let tcp = &self.pool.settings().tcp;
            DialOptions { timeout, nodelay: tcp.nodelay, user_timeout: tcp.user_timeout, purpose }
        };
        net::dial(target, source, &options).await
    }

    fn begin<'h>(&self, backend: Transport, header: impl FnOnce() -> Header<'h>) -> Result<Transport, DialError> {
        // Whatever ends it here, it was made, and is lost before it was of use: as good as a reset.
        self.send_proxy_header(&backend, header).map_err(|error| DialError::new(ConnectFailure::Reset, error))?;
        Ok(backend)
    }

    /// The address that the next connection to `target` comes from. `client`: for whom it is, if for anybody.
    fn next_source(&self, target: &Target, client: Option<IpAddr>) -> Source {
        let settings = self.pool.settings();
        let addresses = match &settings.source {
            SourceAddress::Client => return client.map_or(Source::Any, Source::Foreign),
            SourceAddress::Addresses(addresses) => addresses,
        };
        let Some(target) = target.ip_and_port().filter(|_| !addresses.is_empty()) else { return Source::Any };
        let turn = self.next_source.fetch_add(1, Ordering::Relaxed);
        let fits = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
        let count = addresses.iter().filter(fits).count().max(1);
        addresses.iter().filter(fits).nth(turn % count).map_or(Source::Any, |source| Source::Own(*source))
    }

    /// Says whose connection it is, in a header of the PROXY protocol, where the pool wants one.
    fn send_proxy_header<'h>(&self, backend: &Transport, header: impl FnOnce() -> Header<'h>) -> io::Result<()> {
        let Some(version) = self.pool.proxy_version() else { return Ok(()) };
        let mut bytes = Vec::new();
        proxy_header::write(version, &header(), &mut bytes);
        backend.send_first(&bytes)
    }
}

/// What is said to it and by it from here on goes through TLS.
async fn shake_hands(
    transport: &Transport,
    tls: &TlsTo,
    name: ServerName<'static>,
    time: Duration,
) -> Result<(), DialError> {
    let failed = |words| DialError::new(ConnectFailure::Tls, io::Error::other(words));
    let session = Session::client(tls.client.config(), name).map_err(|error| failed(error.to_string()))?;
    let error = match tokio::time::timeout(time, transport.start_tls(session, &mut |_| true)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => {
            let words = "no end of the TLS handshake in time";
            return Err(DialError::new(ConnectFailure::Timeout, io::Error::other(words)));
        }
    };
    Err(match error {
        HandshakeError::Tls(error) => {
            let error = io::Error::other(error);
            failed(tls::words_for(&error).unwrap_or_else(|| error.to_string()))
        }
        HandshakeError::Lost(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            failed("the server ended the connection within the TLS handshake".to_owned())
        }
        HandshakeError::Lost(error) => DialError::new(ConnectFailure::Reset, error),
        HandshakeError::NotWanted => unreachable!("all that comes is wanted"),
    })
}
