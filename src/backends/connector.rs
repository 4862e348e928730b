//! The only way to a backend, for clients' connections and health checks alike: source address, socket options, the
//! header of the PROXY protocol.
//!
//! Doesn't choose the backend, and judges nobody: what a failure says of a backend is for the caller to decide.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::net::{self, ConnectFailure, DialError, DialOptions, Purpose, Target, Transport};
use crate::protocol::proxy_header::{self, Origin};

use super::pool::Pool;

/// Connects to the backends of one pool. Shared by all workers and the pool's health checks.
#[derive(Debug)]
pub struct Connector {
    pool: Arc<Pool>,
    /// Whose turn it is among the pool's source addresses.
    next_source: AtomicUsize,
}

impl Connector {
    /// Under the settings that `pool` has at each connect.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool, next_source: AtomicUsize::new(0) }
    }

    /// Connects for a client, within the pool's connect timeout. `origin` is called where the pool wants a PROXY header
    /// only: finding it out costs a system call. Safe to cancel.
    ///
    /// # Errors
    /// Why it did not work.
    pub async fn connect(&self, target: &Target, origin: impl FnOnce() -> Origin) -> Result<Transport, DialError> {
        let timeout = self.pool.settings().connect_timeout;
        let backend = self.dial(target, timeout, Purpose::Data).await?;
        self.begin(backend, origin)
    }

    /// Connects for a health check, which has a time limit as a whole and sets none here. Safe to cancel.
    ///
    /// `is_own`: it goes where clients' connections go too. What listens elsewhere expects no PROXY header.
    ///
    /// # Errors
    /// Why it did not work.
    pub(super) async fn connect_for_check(&self, target: &Target, is_own: bool) -> Result<Transport, DialError> {
        let backend = self.dial(target, Duration::MAX, Purpose::Talk).await?;
        // LOCAL: the connection is the balancer's own, and belongs to no client.
        if is_own { self.begin(backend, || Origin::Local) } else { Ok(backend) }
    }

    /// Finds out whether a connection can be made, for a health check that needs no more, and so that the application
    /// sees none: one that ends at once is an error to some (MariaDB refuses the host after a hundred). Only a unix
    /// socket's accept gets it: it has no handshake. Safe to cancel.
    ///
    /// # Errors
    /// Why it can't.
    pub(super) async fn try_connect(&self, target: &Target) -> Result<(), DialError> {
        self.dial(target, Duration::MAX, Purpose::Unseen).await.map(drop)
    }

    /// The pool whose backends these are.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    async fn dial(&self, target: &Target, timeout: Duration, purpose: Purpose) -> Result<Transport, DialError> {
        let options = {
            let tcp = &self.pool.settings().tcp;
            DialOptions { timeout, nodelay: tcp.nodelay, user_timeout: tcp.user_timeout, purpose }
        };
        net::dial(target, self.next_source(target), &options).await
    }

    fn begin(&self, backend: Transport, origin: impl FnOnce() -> Origin) -> Result<Transport, DialError> {
        // Whatever ends it here, it was made, and is lost before it was of use: as good as a reset.
        self.send_proxy_header(&backend, origin).map_err(|error| DialError::new(ConnectFailure::Reset, error))?;
        Ok(backend)
    }

    /// The address that the next connection to `target` comes from: the next one of its family. `None`: the kernel
    /// chooses.
    fn next_source(&self, target: &Target) -> Option<IpAddr> {
        let settings = self.pool.settings();
        let target = target.ip_and_port()?;
        if settings.source.is_empty() {
            return None;
        }
        let turn = self.next_source.fetch_add(1, Ordering::Relaxed);
        let fits = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
        let count = settings.source.iter().filter(fits).count().max(1);
        settings.source.iter().filter(fits).nth(turn % count).copied()
    }

    /// Says whose connection it is, in a header of the PROXY protocol, where the pool wants one.
    fn send_proxy_header(&self, backend: &Transport, origin: impl FnOnce() -> Origin) -> io::Result<()> {
        let Some(version) = self.pool.proxy_version() else { return Ok(()) };
        let mut header = Vec::new();
        proxy_header::write(version, origin(), &mut header);
        backend.send_first(&header)
    }
}
