//! Active health checks, the asking part: one task a backend, on the main thread.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::config::{HealthCheck, HttpCheck};
use crate::net::Target;
use crate::protocol::proxy_header::{self, Origin};

use super::backend::Backend;
use super::pool::Pool;

/// Intervals vary by this share either way, so that a pool's checks don't fall on one instant.
const JITTER: f64 = 0.1;

/// Checks every backend of `pool`, also those that come later, until dropped.
pub async fn watch(pool: Arc<Pool>, settings: HealthCheck) -> Infallible {
    let settings = Arc::new(settings);
    let mut tasks = JoinSet::new();
    let mut watched: HashMap<*const Backend, AbortHandle> = HashMap::new();
    loop {
        let backends = pool.backends();
        watched.retain(|known, task| {
            let stays = backends.iter().any(|backend| Arc::as_ptr(backend) == *known);
            if !stays {
                task.abort();
            }
            stays
        });
        for backend in backends.iter() {
            watched
                .entry(Arc::as_ptr(backend))
                .or_insert_with(|| tasks.spawn_local(check_for_ever(pool.clone(), backend.clone(), settings.clone())));
        }
        // What was aborted is not kept.
        while tasks.try_join_next().is_some() {}
        pool.replaced().await;
    }
}

async fn check_for_ever(pool: Arc<Pool>, backend: Arc<Backend>, settings: Arc<HealthCheck>) -> Infallible {
    loop {
        let mut header = Vec::new();
        if let Some(version) = pool.proxy_version() {
            // The check is the balancer's own connection.
            proxy_header::write(version, Origin::Local, &mut header);
        }
        let result = tokio::time::timeout(settings.timeout, check(backend.target(), &header, &settings))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", settings.timeout)));
        let reason = result.as_ref().err().map_or("", String::as_str);
        backend.checked(result.is_ok(), reason, Instant::now());
        tokio::time::sleep(jittered(settings.interval)).await;
    }
}

async fn check(target: &Target, header: &[u8], settings: &HealthCheck) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    match target {
        Target::Tcp(address) => {
            answers(TcpStream::connect(address).await.map_err(failed)?, header, target, settings).await
        }
        Target::Unix(path) => answers(UnixStream::connect(path).await.map_err(failed)?, header, target, settings).await,
    }
}

/// A connection was made: that is all, or the answer to a GET decides.
async fn answers<S>(mut stream: S, header: &[u8], target: &Target, settings: &HealthCheck) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    stream.write_all(header).await.map_err(|error| error.to_string())?;
    let Some(http) = &settings.http else { return Ok(()) };
    let status = status_of(stream, target, http).await.map_err(|error| error.to_string())?;
    if http.status.iter().any(|range| range.contains(&status)) { Ok(()) } else { Err(format!("answered {status}")) }
}

async fn status_of<S>(stream: S, target: &Target, http: &HttpCheck) -> Result<u16, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn_local(connection);
    let host = http.host.clone().unwrap_or_else(|| match target {
        Target::Tcp(address) => address.to_string(),
        Target::Unix(_) => "localhost".to_owned(),
    });
    let request = hyper::Request::get(&http.path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("the configuration was checked: the path and the host are valid");
    Ok(sender.send_request(request).await?.status().as_u16())
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))
}
