//! Backends of one rank, and how a policy chooses among them.
//!
//! Made as a whole and never changed. Whether a backend may be chosen is the caller's to say, at each choice.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backends::{Backend, Lease};
use crate::config::Policy;

use super::maglev::{self, Maglev};
use super::order::{order_of, turns_of};

/// Places of the hash table that are looked up before the backends are gone through one by one.
const MOST_LOOK_UPS: u64 = 8;

/// Turns that are looked at before the backends are gone through one by one. Among so many, the others take a full
/// backend's turns in proportion to their weights; to look at more would cost more than a connection is worth.
const MOST_TURNS_TRIED: usize = 1024;

/// Backends of one rank, as they were when the table was built.
#[derive(Debug)]
pub(super) struct Tier {
    backends: Vec<Arc<Backend>>,
    /// Indices into `backends`, each as often as its turns; empty where all have the same number.
    order: Vec<u32>,
    policy: Policy,
    /// Where the policy wants one.
    maglev: Option<Maglev>,
}

/// The global turn of one pick: taken when it is first needed, and the same in each tier that the pick looks at, so
/// that a pick moves the order on by one place at most.
pub(super) struct Turn<'a> {
    counter: &'a AtomicU64,
    taken: Cell<Option<u64>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(counter: &'a AtomicU64) -> Self {
        Self { counter, taken: Cell::new(None) }
    }

    /// Where a round of `length` places is at this turn.
    fn place(&self, length: usize) -> usize {
        let turn = self.taken.get().unwrap_or_else(|| self.counter.fetch_add(1, Ordering::Relaxed));
        self.taken.set(Some(turn));
        usize::try_from(turn % length as u64).expect("less than a length")
    }
}

impl Tier {
    pub(super) fn new(policy: Policy, backends: Vec<Arc<Backend>>) -> Self {
        // Read once: they change while a backend starts slowly, and the order and the hash table must agree on them.
        let weights: Vec<u32> = backends.iter().map(|backend| backend.effective_weight()).collect();
        let maglev = (policy == Policy::SourceHash && !backends.is_empty()).then(|| {
            let labels = backends.iter().map(|backend| backend.label());
            Maglev::new(&labels.zip(weights.iter().copied()).collect::<Vec<_>>())
        });
        Self { order: order_of(&turns_of(&weights)), maglev, policy, backends }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Chooses one that `may` be used and has room, and counts a connection on it. `client` matters to the hash only.
    pub(super) fn choose(
        &self,
        turn: &Turn<'_>,
        client: Option<IpAddr>,
        may: &dyn Fn(&Arc<Backend>) -> bool,
    ) -> Option<Lease> {
        if self.backends.is_empty() {
            return None;
        }
        let chosen = match (self.policy, &self.maglev, client) {
            (Policy::SourceHash, Some(maglev), Some(client)) => self.by_hash(maglev, client, may),
            (Policy::LeastConnections, ..) => self.least_loaded(turn, may),
            (Policy::RandomTwo, ..) => self.better_of_two(may),
            _ => None,
        };
        // Round robin itself; and where the policy's choice is full or may not be used, the next in turn.
        chosen.or_else(|| self.in_turn(turn, may))
    }

    fn in_turn(&self, turn: &Turn<'_>, may: &dyn Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        let places = self.places();
        let start = turn.place(places);
        // Nearly always it is this one.
        let first = self.at(start);
        if let Some(lease) = Some(first).filter(|backend| may(backend)).and_then(Lease::take) {
            return Some(lease);
        }
        // Where all are full, that shows by a look at each backend; the order has many turns of each.
        if !self.backends.iter().any(|backend| may(backend) && backend.has_room()) {
            return None;
        }
        (1..places.min(MOST_TURNS_TRIED))
            .map(|step| self.at((start + step) % places))
            .filter(|backend| may(backend))
            .find_map(Lease::take)
            // A few with room among very many turns of others.
            .or_else(|| one_by_one(&self.backends, turn, may))
    }

    fn by_hash(&self, maglev: &Maglev, client: IpAddr, may: &dyn Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        let client = maglev::hash_of(client);
        (0..MOST_LOOK_UPS)
            .map(|attempt| &self.backends[maglev.look_up(client, attempt)])
            .filter(|backend| may(backend))
            .find_map(Lease::take)
    }

    /// The smallest load; among equals, the next in turn.
    fn least_loaded(&self, turn: &Turn<'_>, may: &dyn Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        in_turn_from(&self.backends, turn.place(self.backends.len()))
            .filter(|backend| may(backend))
            .map(|backend| (load_of(backend), backend))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .and_then(|(_, backend)| Lease::take(backend))
    }

    /// The less loaded of two picked at random by weight (Mitzenmacher, "The Power of Two Choices in Randomized Load
    /// Balancing", 2001).
    fn better_of_two(&self, may: &dyn Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        let first = self.at(fastrand::usize(..self.places()));
        let mut second = self.at(fastrand::usize(..self.places()));
        // Twice the same is no choice. Once more, not until they differ: one backend may have nearly all turns.
        if Arc::ptr_eq(first, second) {
            second = self.at(fastrand::usize(..self.places()));
        }
        let (better, other) = if load_of(second) < load_of(first) { (second, first) } else { (first, second) };
        [better, other].into_iter().filter(|backend| may(backend)).find_map(Lease::take)
    }

    fn places(&self) -> usize {
        if self.order.is_empty() { self.backends.len() } else { self.order.len() }
    }

    fn at(&self, place: usize) -> &Arc<Backend> {
        match self.order.get(place) {
            Some(index) => &self.backends[*index as usize],
            None => &self.backends[place],
        }
    }
}

/// The first with room of those that `may` be used, from the turn's place on; weights don't count.
pub(super) fn one_by_one(
    backends: &[Arc<Backend>],
    turn: &Turn<'_>,
    may: &dyn Fn(&Arc<Backend>) -> bool,
) -> Option<Lease> {
    if backends.is_empty() {
        return None;
    }
    in_turn_from(backends, turn.place(backends.len())).filter(|backend| may(backend)).find_map(Lease::take)
}

/// All of them, beginning with the one at `start`.
fn in_turn_from(backends: &[Arc<Backend>], start: usize) -> impl Iterator<Item = &Arc<Backend>> {
    let (before, from) = backends.split_at(start);
    from.iter().chain(before)
}

/// Connections a weight, with the one that is to come.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53 connections")]
fn load_of(backend: &Arc<Backend>) -> f64 {
    (backend.active() + 1) as f64 / f64::from(backend.effective_weight().max(1))
}
