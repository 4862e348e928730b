//! Active health checks, the asking part: one task for each backend, on the main thread.
//!
//! Connects as clients' connections do, by the pool's [`Connector`]. What results in a row say is [`RiseFall`]'s to
//! decide.
//!
//! [`RiseFall`]: super::rise_fall::RiseFall

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};

use crate::config::HealthCheck;
use crate::net::DialError;

use super::backend::Backend;
use super::connector::Connector;
use super::http_check;
use super::rise_fall::CheckFinding;

/// Intervals vary by this share either way, so that a pool's checks don't fall on one instant.
const JITTER: f64 = 0.1;

/// A pool's first checks fall into so long a time for each backend.
const FIRST_CHECKS: Duration = Duration::from_millis(1);

/// Checks every backend of the connector's pool, also those that come later, until dropped.
pub async fn watch(connector: Arc<Connector>, settings: HealthCheck) -> Infallible {
    let settings = Arc::new(settings);
    let mut tasks = JoinSet::new();
    let mut watched: HashMap<*const Backend, AbortHandle> = HashMap::new();
    loop {
        let backends = connector.pool().backends();
        let present: HashSet<_> = backends.iter().map(Arc::as_ptr).collect();
        watched.retain(|known, task| {
            let stays = present.contains(known);
            if !stays {
                task.abort();
            }
            stays
        });
        for backend in backends.iter() {
            // Its task holds the backend, so that no other can come to be at its place in memory while it is watched.
            watched.entry(Arc::as_ptr(backend)).or_insert_with(|| {
                tasks.spawn_local(check_for_ever(connector.clone(), backend.clone(), settings.clone()))
            });
        }
        // A task that was aborted leaves its result behind.
        while tasks.try_join_next().is_some() {}
        connector.pool().replaced().await;
    }
}

async fn check_for_ever(connector: Arc<Connector>, backend: Arc<Backend>, settings: Arc<HealthCheck>) -> Infallible {
    // A pool of many is not to be asked all at once; one of a few is, for it is to be known at once.
    let backends = u32::try_from(connector.pool().backends().len()).unwrap_or(u32::MAX);
    tokio::time::sleep((FIRST_CHECKS * backends).min(settings.interval).mul_f64(fastrand::f64())).await;
    loop {
        let result = tokio::time::timeout(settings.timeout, check(&connector, &backend, &settings))
            .await
            .unwrap_or_else(|_| Err(CheckError::Backend(format!("no answer within {:?}", settings.timeout))));
        match result {
            Ok(()) => backend.record_check(CheckFinding::Well, Instant::now()),
            Err(CheckError::Standby(reason)) => backend.record_check(CheckFinding::Standby(&reason), Instant::now()),
            Err(CheckError::Backend(reason)) => backend.record_check(CheckFinding::Failed(&reason), Instant::now()),
            Err(CheckError::Local(reason)) => tracing::debug!(backend = backend.label(), reason, "no health check"),
        }
        tokio::time::sleep(jittered(settings.interval)).await;
    }
}

/// Why a check found no answer.
enum CheckError {
    /// It is well, but in another role.
    Standby(String),
    /// That speaks against the backend.
    Backend(String),
    /// This machine had no file or no port for it: it says nothing of the backend.
    Local(String),
}

impl From<DialError> for CheckError {
    fn from(error: DialError) -> Self {
        let reason = error.to_string();
        if error.failure.is_backends_fault() { Self::Backend(reason) } else { Self::Local(reason) }
    }
}

/// A connection was made: that is all, or the answer to a GET decides.
async fn check(connector: &Connector, backend: &Backend, settings: &HealthCheck) -> Result<(), CheckError> {
    let stream = connector.connect_for_check(backend.target()).await?;
    let Some(http) = &settings.http else { return Ok(()) };
    let asked = http_check::ask(&stream, backend.target(), http).await;
    let status = asked.map_err(|error| CheckError::Backend(error.to_string()))?;
    let is_in = |ranges: &[RangeInclusive<u16>]| ranges.iter().any(|range| range.contains(&status));
    if is_in(&http.status) {
        Ok(())
    } else if is_in(&http.standby_status) {
        Err(CheckError::Standby(format!("answered {status}")))
    } else {
        Err(CheckError::Backend(format!("answered {status}")))
    }
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))
}
