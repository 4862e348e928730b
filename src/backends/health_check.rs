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
use crate::net::{DialError, Target};
use crate::protocol::proxy_header::{self, Origin};

use super::backend::Backend;
use super::pool::Pool;

/// Intervals vary by this share either way, so that a pool's checks don't fall on one instant.
const JITTER: f64 = 0.1;

/// A pool's first checks fall into so long a time for each backend.
const FIRST_CHECKS: Duration = Duration::from_millis(1);

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
    // A pool of many is not to be asked all at once; one of a few is, for it is to be known at once.
    let backends = u32::try_from(pool.backends().len()).unwrap_or(u32::MAX);
    tokio::time::sleep((FIRST_CHECKS * backends).min(settings.interval).mul_f64(fastrand::f64())).await;
    loop {
        let mut header = Vec::new();
        if let Some(version) = pool.proxy_version() {
            // The check is the balancer's own connection.
            proxy_header::write(version, Origin::Local, &mut header);
        }
        let result = tokio::time::timeout(settings.timeout, check(backend.target(), &header, &settings))
            .await
            .unwrap_or_else(|_| Err(Fault::Backends(format!("no answer within {:?}", settings.timeout))));
        match result {
            Ok(()) => backend.record_check(true, "", Instant::now()),
            Err(Fault::Backends(reason)) => backend.record_check(false, &reason, Instant::now()),
            Err(Fault::Ours(reason)) => tracing::debug!(backend = backend.label(), reason, "no health check"),
        }
        tokio::time::sleep(jittered(settings.interval)).await;
    }
}

/// Why a check found no answer.
enum Fault {
    /// That speaks against the backend.
    Backends(String),
    /// We had no file or no port for it: it says nothing.
    Ours(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let error = DialError::from(error);
        let reason = error.to_string();
        if error.failure.is_backends_fault() { Self::Backends(reason) } else { Self::Ours(reason) }
    }
}

async fn check(target: &Target, header: &[u8], settings: &HealthCheck) -> Result<(), Fault> {
    match target {
        Target::Tcp(address) => answers(TcpStream::connect(address).await?, header, target, settings).await,
        Target::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
                // No socket there, or its queue is full.
                io::ErrorKind::NotFound | io::ErrorKind::WouldBlock => Fault::Backends(error.to_string()),
                _ => Fault::from(error),
            })?;
            answers(stream, header, target, settings).await
        }
    }
}

/// A connection was made: that is all, or the answer to a GET decides.
async fn answers<S>(mut stream: S, header: &[u8], target: &Target, settings: &HealthCheck) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: &dyn std::fmt::Display| Fault::Backends(error.to_string());
    stream.write_all(header).await.map_err(|error| failed(&error))?;
    let Some(http) = &settings.http else { return Ok(()) };
    let status = status_of(stream, target, http).await.map_err(|error| failed(&error))?;
    if http.status.iter().any(|range| range.contains(&status)) {
        Ok(())
    } else {
        Err(failed(&format_args!("answered {status}")))
    }
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
