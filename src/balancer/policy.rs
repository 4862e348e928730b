//! Backends of one rank, and how a policy chooses among them.
//!
//! Built as a whole and never changed. At each choice the caller says which backends are eligible.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backends::{Backend, Lease};
use crate::config::Policy;

use super::maglev::{self, Maglev};
use super::round_robin::{order_of, turns_of};

/// Places of the hash table that are looked up for one client; then the next backend in turn is taken.
const MOST_LOOKUPS: u64 = 8;

/// Turns that are looked at before the search goes from backend to backend. Within these, a full backend's turns fall
/// to the others in proportion to their weights; more would cost more than a connection is worth.
const MOST_TURNS_TRIED: usize = 1024;

/// Whether a backend may be chosen. Room on it is looked at apart.
pub(super) type Eligible<'a> = &'a dyn Fn(&Arc<Backend>) -> bool;

/// Backends of one rank, as they were when the table was built.
#[derive(Debug)]
pub(super) struct Tier {
    backends: Vec<Arc<Backend>>,
    /// Indices into `backends`, each as often as its turns; empty if all have the same number.
    order: Vec<u32>,
    policy: Policy,
    /// `None`: the policy is another than source_hash.
    maglev: Option<Maglev>,
}

/// The global turn of one pick. Taken from the counter when it is first needed, and the same in each tier that the pick
/// looks at: a pick moves the order on by one place at most.
pub(super) struct Turn<'a> {
    /// `None`: there are no turns, each search begins with the first backend.
    counter: Option<&'a AtomicU64>,
    taken: Cell<Option<u64>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(policy: Policy, counter: &'a AtomicU64) -> Self {
        Self { counter: (policy != Policy::First).then_some(counter), taken: Cell::new(None) }
    }

    /// Leaves out the turn after this one.
    fn skip_one(&self) {
        self.advance();
    }

    /// The place of this turn in a round of `length` places.
    fn place(&self, length: usize) -> usize {
        let turn = self.taken.get().unwrap_or_else(|| self.advance());
        self.taken.set(Some(turn));
        usize::try_from(turn % length as u64).expect("less than a length")
    }

    fn advance(&self) -> u64 {
        self.counter.map_or(0, |counter| counter.fetch_add(1, Ordering::Relaxed))
    }
}

impl Tier {
    pub(super) fn new(policy: Policy, backends: Vec<Arc<Backend>>) -> Self {
        // Read once: they change during a slow start, and the order and the hash table must agree on them.
        let weights: Vec<u32> = backends.iter().map(|backend| backend.effective_weight()).collect();
        let maglev = if policy == Policy::SourceHash && !backends.is_empty() {
            let labels = backends.iter().map(|backend| backend.label());
            Some(Maglev::new(&labels.zip(weights.iter().copied()).collect::<Vec<_>>()))
        } else {
            None
        };
        Self { order: order_of(&turns_of(&weights)), maglev, policy, backends }
    }

    /// Chooses an eligible backend that has room, and counts a connection on it. `client` matters to the hash only.
    pub(super) fn choose(&self, turn: &Turn<'_>, client: Option<IpAddr>, is_eligible: Eligible<'_>) -> Option<Lease> {
        if self.backends.is_empty() {
            return None;
        }
        let chosen = match (self.policy, &self.maglev, client) {
            // In the order of the configuration, whatever the weights.
            (Policy::First, ..) => return first_with_room(&self.backends, turn, is_eligible),
            (Policy::SourceHash, Some(maglev), Some(client)) => self.source_hash(maglev, client, is_eligible),
            (Policy::LeastConnections, ..) => self.least_connections(turn, is_eligible),
            (Policy::RandomTwo, ..) => self.random_two(is_eligible),
            _ => None,
        };
        // Also where another policy's choice is full or not eligible, or a client has no address to hash.
        chosen.or_else(|| self.round_robin(turn, is_eligible))
    }

    fn round_robin(&self, turn: &Turn<'_>, is_eligible: Eligible<'_>) -> Option<Lease> {
        let length = self.round_length();
        let start = turn.place(length);
        // Nearly always it is this one.
        let first = self.backend_at(start);
        if is_eligible(first) {
            if first.passes_turn() && self.backends.len() > 1 {
                // The one after takes this turn, and has had its own by it.
                turn.skip_one();
            } else if let Some(lease) = Lease::take(first) {
                return Some(lease);
            }
        }
        // That all are full shows sooner by a look at each backend: a round has many turns of each.
        if !self.backends.iter().any(|backend| is_eligible(backend) && backend.has_room()) {
            return None;
        }
        (1..length.min(MOST_TURNS_TRIED))
            .map(|step| self.backend_at((start + step) % length))
            .filter(|backend| is_eligible(backend))
            .find_map(Lease::take)
            // For a few with room whose turns are far apart.
            .or_else(|| first_with_room(&self.backends, turn, is_eligible))
    }

    fn source_hash(&self, maglev: &Maglev, client: IpAddr, is_eligible: Eligible<'_>) -> Option<Lease> {
        let client = maglev::hash_of(client);
        (0..MOST_LOOKUPS)
            .map(|attempt| &self.backends[maglev.lookup(client, attempt)])
            .filter(|backend| is_eligible(backend))
            .find_map(Lease::take)
    }

    /// The smallest load; among equals, the next in turn.
    fn least_connections(&self, turn: &Turn<'_>, is_eligible: Eligible<'_>) -> Option<Lease> {
        in_turn_from(&self.backends, turn.place(self.backends.len()))
            .filter(|backend| is_eligible(backend))
            .map(|backend| (load_of(backend), backend))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .and_then(|(_, backend)| Lease::take(backend))
    }

    /// The less loaded of two picked at random by weight (Mitzenmacher, "The Power of Two Choices in Randomized Load
    /// Balancing", 2001).
    fn random_two(&self, is_eligible: Eligible<'_>) -> Option<Lease> {
        let first = self.random_backend();
        let mut second = self.random_backend();
        // The same one twice is no choice. Tried once more, not until they differ: one may have nearly all the turns.
        if Arc::ptr_eq(first, second) {
            second = self.random_backend();
        }
        let (better, other) = if load_of(second) < load_of(first) { (second, first) } else { (first, second) };
        [better, other].into_iter().filter(|backend| is_eligible(backend)).find_map(Lease::take)
    }

    fn random_backend(&self) -> &Arc<Backend> {
        self.backend_at(fastrand::usize(..self.round_length()))
    }

    fn round_length(&self) -> usize {
        if self.order.is_empty() { self.backends.len() } else { self.order.len() }
    }

    fn backend_at(&self, place: usize) -> &Arc<Backend> {
        match self.order.get(place) {
            Some(index) => &self.backends[*index as usize],
            // Without an order, each has one turn.
            None => &self.backends[place],
        }
    }
}

/// The first eligible backend with room, from the turn's place on; weights don't count.
pub(super) fn first_with_room(backends: &[Arc<Backend>], turn: &Turn<'_>, is_eligible: Eligible<'_>) -> Option<Lease> {
    if backends.is_empty() {
        return None;
    }
    in_turn_from(backends, turn.place(backends.len())).filter(|backend| is_eligible(backend)).find_map(Lease::take)
}

/// All of them, beginning with the one at `start`.
fn in_turn_from(backends: &[Arc<Backend>], start: usize) -> impl Iterator<Item = &Arc<Backend>> {
    let (before, from) = backends.split_at(start);
    from.iter().chain(before)
}

/// Connections in proportion to the weight, with the one that is to come.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53 connections")]
fn load_of(backend: &Arc<Backend>) -> f64 {
    (backend.active() + 1) as f64 / f64::from(backend.effective_weight().max(1))
}
