//! Backends of one rank, and how a policy chooses among them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::backends::{Backend, Lease};
use crate::config::Policy;

use super::maglev::{self, Maglev};
use super::order::order_of;

/// Places of the hash table that are looked up before the backends are gone through one by one.
const MOST_LOOK_UPS: u64 = 8;

/// Backends of one rank, as they were when the table was made.
#[derive(Debug)]
pub(super) struct Tier {
    backends: Vec<Arc<Backend>>,
    /// One for each: they change while a backend starts slowly, and the order and the hash table must agree on them.
    weights: Vec<u32>,
    /// Indices into `backends`, each as often as its weight; empty where all weights are equal.
    order: Vec<u32>,
    policy: Policy,
    /// Made when it is first asked for: the tier that everything fails open to is seldom asked.
    maglev: OnceLock<Maglev>,
}

impl Tier {
    pub(super) fn new(policy: Policy, backends: Vec<Arc<Backend>>) -> Self {
        let weights: Vec<u32> = backends.iter().map(|backend| backend.effective_weight()).collect();
        Self { order: order_of(&weights), weights, maglev: OnceLock::new(), policy, backends }
    }

    /// Chooses one that `may` be used and has room, and counts a connection on it. `client` matters to the hash only.
    pub(super) fn choose(
        &self,
        turn: &AtomicU64,
        client: Option<IpAddr>,
        may: &dyn Fn(&Arc<Backend>) -> bool,
    ) -> Option<Lease> {
        if self.backends.is_empty() {
            return None;
        }
        let chosen = match (self.policy, client) {
            (Policy::SourceHash, Some(client)) => self.by_hash(client, may),
            (Policy::LeastConnections, _) => self.least_loaded(turn, may),
            (Policy::RandomTwo, _) => self.better_of_two(may),
            _ => None,
        };
        // Round robin itself; and where the policy's choice is not to be had, whoever is next.
        chosen.or_else(|| self.in_turn(take_turn(turn), may))
    }

    pub(super) fn any(&self, may: &dyn Fn(&Arc<Backend>) -> bool) -> bool {
        self.backends.iter().any(may)
    }

    fn in_turn(&self, turn: u64, may: &dyn Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        let start = below(turn, self.places());
        (0..self.places())
            .map(|step| self.at((start + step) % self.places()))
            .filter(|backend| may(backend))
            .find_map(Backend::lease)
    }

    fn by_hash(&self, client: IpAddr, may: &dyn Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        let labels = self.backends.iter().map(|backend| backend.label());
        let table =
            self.maglev.get_or_init(|| Maglev::new(&labels.zip(self.weights.iter().copied()).collect::<Vec<_>>()));
        let client = maglev::hash_of(client);
        (0..MOST_LOOK_UPS)
            .map(|attempt| &self.backends[table.look_up(client, attempt)])
            .filter(|backend| may(backend))
            .find_map(Backend::lease)
    }

    /// The smallest load; among equals, the next in turn.
    fn least_loaded(&self, turn: &AtomicU64, may: &dyn Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        let count = self.backends.len();
        let start = below(take_turn(turn), count);
        (0..count)
            .map(|step| &self.backends[(start + step) % count])
            .filter(|backend| may(backend))
            .map(|backend| (load_of(backend), backend))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .and_then(|(_, backend)| backend.lease())
    }

    /// The less loaded of two picked at random by weight (Mitzenmacher, "The Power of Two Choices in Randomized Load
    /// Balancing", 2001).
    fn better_of_two(&self, may: &dyn Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        let first = self.at(fastrand::usize(..self.places()));
        let mut second = self.at(fastrand::usize(..self.places()));
        if Arc::ptr_eq(first, second) {
            second = self.at(fastrand::usize(..self.places()));
        }
        let (better, other) = if load_of(second) < load_of(first) { (second, first) } else { (first, second) };
        [better, other].into_iter().filter(|backend| may(backend)).find_map(Backend::lease)
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

/// Connections a weight, with the one that is to come.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53 connections")]
fn load_of(backend: &Arc<Backend>) -> f64 {
    (backend.active() + 1) as f64 / f64::from(backend.effective_weight().max(1))
}

fn take_turn(turn: &AtomicU64) -> u64 {
    turn.fetch_add(1, Ordering::Relaxed)
}

fn below(turn: u64, length: usize) -> usize {
    usize::try_from(turn % length as u64).expect("less than a length")
}
