//! The HTTP server of the admin address, and the way from a path to an answer.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::access_log::AccessLog;
use crate::backends::Pool;
use crate::lifecycle::{ConnectionLimit, DrainWatch, Phase};
use crate::net::{self, ListenAddress, ListenOptions};
use crate::telemetry::ListenerStats;

use super::api::{PoolsReport, StatusReport};
use super::metrics::{Exporter, UPKEEP_INTERVAL};

/// A request's head must come within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections served at once; scrapers and people are few.
const MAX_CLIENTS: usize = 64;
/// Heads larger than this are refused; also hyper's smallest buffer.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// After a failed accept: what was missing may be there again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running parts that the admin server shows.
pub struct View {
    /// When the process started.
    pub started: Instant,
    /// Worker threads.
    pub workers: usize,
    /// Client connections of the process.
    pub connections: Arc<ConnectionLimit>,
    /// How far the stop has come.
    pub drain: DrainWatch,
    /// What the workers count, listener by listener.
    pub listeners: Vec<Arc<ListenerStats>>,
    /// In the order of their names.
    pub pools: Vec<Arc<Pool>>,
    /// The access log, unless it is off.
    pub access_log: Option<Arc<AccessLog>>,
    /// Renders the metrics.
    pub exporter: Exporter,
}

impl View {
    pub(super) fn is_draining(&self) -> bool {
        self.drain.phase() > Phase::Running
    }

    /// Why no more traffic should come here; `None`: it should.
    fn unready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("draining".to_owned());
        }
        let empty = self.pools.iter().find(|pool| pool.backends().is_empty())?;
        Some(format!("pool {} has no backend: none of its names has resolved yet", empty.name()))
    }
}

/// The admin server's listening socket.
pub enum Listener {
    /// On an address and port.
    Tcp(TcpListener),
    /// On a unix socket.
    Unix(UnixListener),
}

/// Binds the admin address. A unix socket that nobody listens on is replaced.
///
/// # Errors
/// What the kernel said.
pub fn bind(address: &ListenAddress) -> io::Result<Listener> {
    let options = ListenOptions { nodelay: true, keepalive: None, user_timeout: None };
    let socket = net::bind(address, &options, 1)?.pop().expect("as many as asked for");
    match address {
        ListenAddress::Tcp(_) | ListenAddress::Any(_) => TcpListener::from_std(socket.into()).map(Listener::Tcp),
        ListenAddress::Unix(_) => UnixListener::from_std(socket.into()).map(Listener::Unix),
    }
}

impl Listener {
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
pub async fn serve(listener: Listener, view: Arc<View>) -> Infallible {
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let permit = clients.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| spawn_client(stream, &view, permit)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| spawn_client(stream, &view, permit)),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "the admin server could not accept");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Keeps the metrics' memory flat, scraped or not.
pub async fn upkeep(view: Arc<View>) -> Infallible {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        view.exporter.upkeep();
    }
}

fn spawn_client<S>(stream: S, view: &Arc<View>, permit: tokio::sync::OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let view = view.clone();
    tokio::spawn(async move {
        let answer = service_fn(move |request| {
            let response = route(&request, &view);
            async move { Ok::<_, Infallible>(response) }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), answer);
        if let Err(error) = serving.await {
            tracing::debug!(%error, "an admin connection failed");
        }
        drop(permit);
    });
}

fn route(request: &Request<Incoming>, view: &View) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        _ if !is_read => error(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here"),
        "/" => text(StatusCode::OK, INDEX),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match view.unready() {
            Some(reason) => error(StatusCode::SERVICE_UNAVAILABLE, &reason),
            None => text(StatusCode::OK, "ready\n"),
        },
        "/metrics" => respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", view.exporter.render(view)),
        "/api/v1/status" => json(StatusCode::OK, &StatusReport::of(view)),
        "/api/v1/pools" => json(StatusCode::OK, &PoolsReport::of(view)),
        path => error(StatusCode::NOT_FOUND, &format!("there is no {path}; see / for what there is")),
    }
}

const INDEX: &str = "lb admin server\n
GET /metrics         Prometheus metrics
GET /healthz         200 while the process runs
GET /readyz          200, or 503 while it drains
GET /api/v1/status   version, uptime, workers, connections, draining
GET /api/v1/pools    pools and their backends
";

#[derive(Serialize)]
struct ErrorReport<'a> {
    error: &'a str,
}

fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json(status, &ErrorReport { error: message })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_string(value).expect("reports have text keys only");
    respond(status, "application/json", body)
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(body.into()))
        .expect("the status and the headers are constants")
}
