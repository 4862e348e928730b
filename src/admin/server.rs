//! The HTTP server of the admin address, with bounds on clients, heads and time.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, spawn_local};

use crate::net;

use super::asker::Asker;
use super::authorization::Reach;
use super::metrics::Exporter;
use super::route::{self, Admin};
use super::view::View;

/// A request's head must be complete within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed after this time, so that a client that never reads its answer takes no place for ever.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks whether the last request of such a client is answered.
const LOOK: Duration = Duration::from_secs(1);
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

    /// From where it can be reached.
    pub fn reach(&self) -> Reach {
        match self {
            Self::Unix(_) => Reach::UnixSocket,
            Self::Tcp(listener) if listener.local_addr().is_ok_and(|own| own.ip().is_loopback()) => Reach::Loopback,
            Self::Tcp(_) => Reach::Network,
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

/// A client's connection.
struct Client {
    serving: JoinHandle<()>,
    /// Since when no request of it is under way.
    idle_since: IdleSince,
}

/// `None`: a request is under way.
type IdleSince = Rc<Cell<Option<Instant>>>;

/// Serves until dropped.
pub async fn serve(listener: AdminListener, view: Arc<View>, exporter: Arc<Exporter>) -> Infallible {
    let admin = Rc::new(Admin { view, exporter, reach: listener.reach() });
    let mut clients = Vec::new();
    loop {
        let accepted = match &listener {
            AdminListener::Tcp(listener) => {
                listener.accept().await.map(|(stream, peer)| Client::start(stream, Asker::Tcp(peer), &admin))
            }
            AdminListener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let asker = Asker::Unix(stream.peer_cred().ok());
                Client::start(stream, asker, &admin)
            }),
        };
        match accepted {
            Ok(client) => {
                clients.push(client);
                keep_within_limit(&mut clients);
            }
            Err(error) => {
                tracing::warn!(%error, "the admin server could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client too many takes the place of the one that has asked nothing for the longest: silent clients must not keep
/// a probe waiting. A request under way is never cut for it.
fn keep_within_limit(clients: &mut Vec<Client>) {
    clients.retain(|client| !client.serving.is_finished());
    if clients.len() > MAX_CLIENTS {
        let idle = clients.iter().enumerate().filter_map(|(index, client)| Some((client.idle_since.get()?, index)));
        let (_, index) = idle.min().expect("the newest has asked nothing yet");
        clients.swap_remove(index).serving.abort();
    }
}

impl Client {
    fn start<S>(stream: S, asker: Asker, admin: &Rc<Admin>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let idle_since: IdleSince = Rc::new(Cell::new(Some(Instant::now())));
        let serving = spawn_local(serve_client(stream, asker, admin.clone(), idle_since.clone()));
        Self { serving, idle_since }
    }
}

async fn serve_client<S>(stream: S, asker: Asker, admin: Rc<Admin>, idle_since: IdleSince)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let is_idle = idle_since.clone();
    let answer = service_fn(move |request| {
        let (admin, idle_since) = (admin.clone(), idle_since.clone());
        async move {
            idle_since.set(None);
            let answer = route::answer(request, asker, &admin).await;
            // What it doesn't read of the answer keeps nobody else waiting.
            idle_since.set(Some(Instant::now()));
            Ok::<_, Infallible>(answer)
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    let mut serving = pin!(serving);
    let time_is_over = async {
        tokio::time::sleep(CLIENT_TIMEOUT).await;
        // A request under way is answered, even one that waits for a backend to drain.
        while is_idle.get().is_none() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = time_is_over => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(HEAD_TIMEOUT, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection failed");
    }
}
