//! The HTTP server of the admin address, with bounds on clients, heads and time.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::net;

use super::metrics::{Exporter, UPKEEP_INTERVAL};
use super::route::{self, Admin};
use super::view::View;

/// A request's head must be complete within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed after this time, so that a client that never reads its answer takes no place for ever.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections served at once. There are few scrapers and operators.
const MAX_CLIENTS: usize = 64;
/// Files that the server may have open at once: its clients, its socket, and a duplicate for an upgrade.
pub const MAX_FILES: u64 = MAX_CLIENTS as u64 + 2;
/// Heads larger than this are refused; also hyper's smallest buffer.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// After a failed accept, which nearly always means that files ran out for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin server's listening socket.
pub enum AdminListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AdminListener {
    /// From a listening socket of either kind.
    ///
    /// # Errors
    /// The runtime's epoll refused it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        if net::is_unix(&socket) {
            UnixListener::from_std(socket.into()).map(Self::Unix)
        } else {
            TcpListener::from_std(socket.into()).map(Self::Tcp)
        }
    }

    /// The address it listens on, with the port that the kernel chose.
    pub fn local_address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
            }
            Self::Unix(_) => "unix socket".to_owned(),
        }
    }
}

/// Serves until dropped.
pub async fn serve(listener: AdminListener, view: Arc<View>, exporter: Arc<Exporter>) -> Infallible {
    let admin = Arc::new(Admin { view, exporter });
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let permit = clients.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = match &listener {
            AdminListener::Tcp(listener) => {
                listener.accept().await.map(|(stream, _)| spawn_client(stream, &admin, permit))
            }
            AdminListener::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| spawn_client(stream, &admin, permit))
            }
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "the admin server could not accept");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Bounds the memory of the metrics, also if nobody scrapes them.
pub async fn upkeep(exporter: Arc<Exporter>) -> Infallible {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        exporter.upkeep();
    }
}

fn spawn_client<S>(stream: S, admin: &Arc<Admin>, permit: tokio::sync::OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let admin = admin.clone();
    tokio::spawn(async move {
        let answer = service_fn(move |request| {
            let admin = admin.clone();
            async move { Ok::<_, Infallible>(route::answer(&request, &admin).await) }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), answer);
        let mut serving = pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = tokio::time::sleep(CLIENT_TIMEOUT) => {
                serving.as_mut().graceful_shutdown();
                tokio::time::timeout(HEAD_TIMEOUT, serving).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection failed");
        }
        drop(permit);
    });
}
