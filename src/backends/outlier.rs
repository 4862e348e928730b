//! Who is to blame for a connection that ended badly: judged by what the backend's peers did meanwhile.
//!
//! Only evidence comes here; failed connects are facts, which a backend's own detector counts.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::FailureDetection;

use super::backend::Backend;
use super::detection::Began;
use super::evidence::{Evidence, Outcomes, better_half, stands_out};
use super::lease::Lease;

/// Where a health check passes, evidence counts only from so many clients, and only against a backend that nobody found
/// well within the window: a check that looks at the service knows more than its clients' behaviour shows.
const CLIENTS_AGAINST_A_CHECK: u32 = 3;
/// Beyond so many bad outcomes, a pool's backends are compared once a millisecond at most: under an attack with rubbish
/// each end would else cost a look at every backend.
const BAD_COMPARED_AT_ONCE: u32 = 16;

/// One for each pool.
#[derive(Debug, Default)]
pub(super) struct Outliers {
    /// Milliseconds on the pool's clock when backends were compared last.
    compared_at: AtomicU64,
    /// One ejection at a time, so that two can't take a half each.
    ejecting: Mutex<()>,
}

/// A connection that ended badly.
pub(super) struct BadEnd<'a> {
    pub(super) lease: &'a Lease,
    pub(super) evidence: Evidence,
    /// `None`: a unix socket's.
    pub(super) client: Option<IpAddr>,
    pub(super) now: Instant,
    /// The same on the pool's clock.
    pub(super) now_millis: u64,
}

impl Outliers {
    /// Counts the end against the backend, and ejects it if it stands out among `backends`, those of its pool.
    pub(super) fn judge(&self, end: &BadEnd<'_>, detection: &FailureDetection, backends: &[Arc<Backend>]) {
        let health = end.lease.backend().health();
        health.record_bad_end(end.now, end.client);
        match end.lease.began() {
            Began::Up => self.eject_if_it_stands_out(end, detection, backends),
            // Its peers tell how much of it is its clients' doing.
            probe @ Began::Probe(_) => {
                let peers = better_half(peers_of(end, backends));
                health.probe_ended_badly(end.now, probe, peers, end.evidence);
            }
            // It is out, and was tried because nothing else was left.
            Began::Ejected(_) => {}
        }
    }

    fn eject_if_it_stands_out(&self, end: &BadEnd<'_>, detection: &FailureDetection, backends: &[Arc<Backend>]) {
        let health = end.lease.backend().health();
        let own = health.outcomes(end.now);
        let least_bad = detection.failures.get();
        if (own.bad as usize) < least_bad || self.compares_too_often(own, end.now_millis) {
            return;
        }
        let Some(peers) = stands_out(own, peers_of(end, backends), least_bad) else { return };
        if health.passes_checks() && (own.good > 0 || health.bad_clients(end.now) < CLIENTS_AGAINST_A_CHECK) {
            return;
        }
        // A thread that panicked with the lock left nothing half done: it guards no data.
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let out = backends.iter().filter(|backend| backend.health().is_out_by_evidence()).count();
        // Never more than half of a pool: where most stand out, it is hardly they that changed.
        if (out + 1) * 2 <= backends.len() {
            health.stands_out(end.now, own, peers, end.evidence);
        }
    }

    fn compares_too_often(&self, own: Outcomes, now_millis: u64) -> bool {
        own.bad > BAD_COMPARED_AT_ONCE && self.compared_at.swap(now_millis, Ordering::Relaxed) == now_millis
    }
}

fn peers_of(end: &BadEnd<'_>, backends: &[Arc<Backend>]) -> Vec<Outcomes> {
    let is_peer = |backend: &&Arc<Backend>| !Arc::ptr_eq(backend, end.lease.backend()) && backend.is_usable();
    backends.iter().filter(is_peer).map(|backend| backend.health().outcomes(end.now)).collect()
}
