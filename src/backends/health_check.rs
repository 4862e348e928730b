//! Active health checks, the asking part: one task for each backend, on the main thread.
//!
//! Connects by the pool's [`Connector`], as clients' connections do; what is asked is in `checks`. What results in a
//! row say is [`RiseFall`]'s to decide.
//!
//! [`RiseFall`]: super::rise_fall::RiseFall

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};

use crate::config::HealthCheck;

use super::backend::Backend;
use super::check_log::CheckResult;
use super::checks::{self, CheckError, CheckStream, Finder};
use super::connector::Connector;
use super::rise_fall::CheckFinding;

/// Intervals vary by this share either way, so that a pool's checks don't fall on one instant.
const JITTER: f64 = 0.1;

/// A pool's first checks fall into so long a time for each backend.
const FIRST_CHECKS: Duration = Duration::from_millis(1);

/// A check that has panicked begins anew after this, at the latest.
const RESTART: Duration = Duration::from_secs(1);

/// Checks every backend of the connector's pool, also those that come later, until dropped.
pub async fn watch(connector: Arc<Connector>, settings: HealthCheck) -> Infallible {
    let settings = Arc::new(settings);
    let mut tasks = JoinSet::new();
    let mut watched: HashMap<*const Backend, AbortHandle> = HashMap::new();
    loop {
        let backends = connector.pool().backends();
        let present: HashSet<_> = backends.iter().map(Arc::as_ptr).collect();
        watched.retain(|known, task| {
            let stays = present.contains(known) && !task.is_finished();
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
        tokio::select! {
            () = connector.pool().replaced() => {}
            Some(Err(ended)) = tasks.join_next() => {
                if ended.is_panic() {
                    tokio::time::sleep(settings.interval.min(RESTART)).await;
                }
            }
        }
    }
}

async fn check_for_ever(connector: Arc<Connector>, backend: Arc<Backend>, settings: Arc<HealthCheck>) -> Infallible {
    // A pool of many is not to be asked all at once; one of a few is, for it is to be known at once.
    let backends = u32::try_from(connector.pool().backends().len()).unwrap_or(u32::MAX);
    tokio::time::sleep((FIRST_CHECKS * backends).min(settings.interval).mul_f64(fastrand::f64())).await;
    let mut finder = Finder::default();
    // The second check falls anywhere into the interval: from then on they are spread over it, however they began.
    let mut share = fastrand::f64();
    loop {
        let began = Instant::now();
        check(&connector, &backend, &settings, &mut finder).await;
        let interval = if backend.health().is_known_well() { settings.interval } else { settings.interval_down };
        tokio::time::sleep_until((began + interval.mul_f64(share)).into()).await;
        share = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
    }
}

/// Makes one check, and reports what it found.
async fn check(connector: &Connector, backend: &Backend, settings: &HealthCheck, finder: &mut Finder) {
    let began = Instant::now();
    let answer = find_and_ask(connector, backend, settings, finder).await;
    let now = Instant::now();
    let note = |result, reason: &str| backend.check_log().note(result, reason, now - began);
    match answer {
        Ok(rest) => {
            note(CheckResult::Success, "");
            backend.record_check(CheckFinding::Well, now);
            if let Some(stream) = rest {
                checks::end(stream).await;
            }
        }
        Err(CheckError::Backend(reason)) => {
            note(CheckResult::Failure, &reason);
            backend.record_check(CheckFinding::Failed(&reason), now);
        }
        Err(CheckError::Standby(reason)) => {
            note(CheckResult::Standby, &reason);
            backend.record_check(CheckFinding::Standby(&reason), now);
        }
        Err(CheckError::Local(reason)) => {
            note(CheckResult::Skipped, &reason);
            tracing::debug!(backend = backend.label(), reason, "no health check");
        }
    }
}

async fn find_and_ask(
    connector: &Connector,
    backend: &Backend,
    settings: &HealthCheck,
    finder: &mut Finder,
) -> Result<Option<CheckStream>, CheckError> {
    let deadline = tokio::time::Instant::now() + settings.timeout;
    let resolve = connector.pool().settings().resolve.clone();
    let found = tokio::time::timeout_at(deadline, finder.find(backend, settings, &resolve)).await;
    let no_name = |_| CheckError::backend(format!("its name can't be resolved within {:?}", settings.timeout));
    checks::ask(connector, &found.map_err(no_name)??, settings, deadline).await
}
