//! Who is to blame for a connection that ended badly: judged by what the backend's peers did meanwhile.
//!
//! Only evidence comes here; failed connects are facts, which a backend's own detector counts.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{FailureDetection, Policy, PoolConfig};

use super::backend::Backend;
use super::detection::Began;
use super::evidence::{Evidence, Outcomes, Peers, stands_out};
use super::lease::Lease;

/// Evidence from fewer clients doesn't count where a health check passes, or where clients are bound to backends. And
/// against a check it counts only if nobody found the backend well within the window.
const FEW_CLIENTS: u32 = 3;
/// A backend gives up a turn for so many bad ends.
const BAD_PER_TURN: u32 = 2;
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
    pub(super) fn judge(&self, end: &BadEnd<'_>, settings: &PoolConfig, backends: &[Arc<Backend>]) {
        let Some(detection) = &settings.failure_detection else { return };
        let backend = end.lease.backend();
        let health = backend.health();
        match end.lease.began() {
            Began::Up(period) if period == health.up_period() => {
                let own = health.record_bad_end(end.now, end.client, end.evidence);
                // Clients that misbehave in step with the turns would all come to one backend, which would stand out.
                if own.bad.is_multiple_of(BAD_PER_TURN) {
                    backend.give_up_turn();
                }
                self.eject_if_it_stands_out(end, own, detection, settings.policy, backends);
            }
            // Its peers tell how much of it is its clients' doing.
            probe @ Began::Probe(_) => {
                health.record_bad_end(end.now, end.client, end.evidence);
                let peers = peers_of(end, detection, backends).together();
                health.probe_ended_badly(end.now, probe, peers, end.evidence);
            }
            // It is out, and was tried because nothing else was left; or has been out since the connection began.
            Began::Ejected(_) | Began::Up(_) => health.note_error(end.evidence.describe()),
        }
    }

    fn eject_if_it_stands_out(
        &self,
        end: &BadEnd<'_>,
        own: Outcomes,
        detection: &FailureDetection,
        policy: Policy,
        backends: &[Arc<Backend>],
    ) {
        let health = end.lease.backend().health();
        let least_bad = detection.failures.get();
        let may_be_ejected = own.are_suspicious(least_bad) && end.lease.backend().is_up();
        if !may_be_ejected || self.compares_too_often(own, end.now_millis) {
            return;
        }
        let Some(peers) = stands_out(own, peers_of(end, detection, backends), least_bad) else { return };
        // Where a client's address chooses its backend, one client's misbehaviour is one backend's.
        let is_known_well = health.is_known_well();
        let needs_clients = policy == Policy::SourceHash || is_known_well;
        if needs_clients && health.bad_clients(end.now) < FEW_CLIENTS || is_known_well && own.good > 0 {
            return;
        }
        if let Some(duration) = self.eject_unless_half_are_out(end, backends) {
            health.report_ejection(duration, own, peers, end.evidence);
        }
    }

    /// Never more than half of the backends of one rank: where most stand out, it is hardly they that changed.
    fn eject_unless_half_are_out(&self, end: &BadEnd<'_>, backends: &[Arc<Backend>]) -> Option<Duration> {
        let rank = end.lease.backend().rank();
        // A thread that panicked with the lock left nothing half done: it guards no data.
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let of_its_rank = || backends.iter().filter(|it| it.rank() == rank && it.is_in_service());
        let out = of_its_rank().filter(|backend| backend.health().is_out_by_evidence()).count();
        let may_eject = (out + 1) * 2 <= of_its_rank().count();
        may_eject.then(|| end.lease.backend().health().eject_for_evidence(end.now)).flatten()
    }

    fn compares_too_often(&self, own: Outcomes, now_millis: u64) -> bool {
        own.bad > BAD_COMPARED_AT_ONCE && self.compared_at.swap(now_millis, Ordering::Relaxed) == now_millis
    }
}

fn peers_of(end: &BadEnd<'_>, detection: &FailureDetection, backends: &[Arc<Backend>]) -> Peers {
    let is_peer = |backend: &&Arc<Backend>| !Arc::ptr_eq(backend, end.lease.backend()) && backend.is_usable();
    let records = backends.iter().filter(is_peer).map(|backend| backend.health().track_record(end.now));
    records.fold(Peers::default(), |peers, record| peers.and(record, detection.failures.get()))
}
