//! Properties of failure detection by evidence: whole pools under clients of every kind, over a simulated clock.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::config::{FailureDetection, PoolConfig};
use crate::lifecycle::Cutter;
use crate::net::Target;

use super::backend::Backend;
use super::endpoint::Endpoint;
use super::evidence::Evidence;
use super::lease::Lease;
use super::pool::Pool;

/// Whole histories of whole pools are slow without optimization.
const SOME_CASES: u32 = 48;
/// No connection lives longer.
const LONGEST_STAY: Duration = Duration::from_millis(LONGEST_STAY_MS);
const LONGEST_STAY_MS: u64 = 3_000;
const JITTER: f64 = 1.1;

/// One that comes a while after the one before, and stays for a while.
#[derive(Clone, Copy, Debug)]
struct Client {
    comes_after: Duration,
    stays: Duration,
    /// Any backend ends its connection badly.
    misbehaves: bool,
}

const WELL_BEHAVED: Client =
    Client { comes_after: Duration::from_millis(100), stays: Duration::ZERO, misbehaves: false };

fn clients(misbehaving: f64) -> impl Strategy<Value = Vec<Client>> {
    let duration = |longest| (0..longest).prop_map(Duration::from_millis);
    let client = (duration(1_000), duration(LONGEST_STAY_MS), prop::bool::weighted(misbehaving));
    let client = client.prop_map(|(comes_after, stays, misbehaves)| Client { comes_after, stays, misbehaves });
    prop::collection::vec(client, 1..250)
}

fn clients_of_any_kind() -> impl Strategy<Value = Vec<Client>> {
    (0.0..=1.0).prop_flat_map(clients)
}

fn by_default() -> FailureDetection {
    PoolConfig::example().failure_detection.expect("on by default")
}

prop_compose! {
    fn settings()(
        failures in 1usize..6,
        [window, ejection] in [1u64..40, 1u64..40].prop_map(|all| all.map(Duration::from_secs)),
        longest in 1u32..40,
    ) -> FailureDetection {
        FailureDetection {
            failures: NonZeroUsize::new(failures).expect("not zero"),
            window,
            ejection,
            max_ejection: ejection * longest,
            ..by_default()
        }
    }
}

struct Connection {
    lease: Lease,
    ends: Instant,
    ends_badly: bool,
}

/// A pool without sockets, the clock that it lives by, and its connections. What holds at any time, of any pool, is
/// asserted whenever something happens.
struct World {
    pool: Arc<Pool>,
    settings: FailureDetection,
    now: Instant,
    turn: usize,
    /// Which backends fail everybody.
    fails: Vec<bool>,
    open: Vec<Connection>,
}

impl World {
    fn new(settings: &FailureDetection, backends: usize) -> Self {
        let now = Instant::now();
        let config = PoolConfig { failure_detection: Some(settings.clone()), ..PoolConfig::example() };
        let pool = Pool::new(config, 1, Cutter::default(), now);
        let endpoint = |port| Endpoint::new(Target::Tcp(SocketAddr::from(([10, 0, 0, 1], port))));
        pool.replace((1..).take(backends).map(endpoint).collect(), now);
        Self { pool, settings: settings.clone(), now, turn: 0, fails: vec![false; backends], open: Vec::new() }
    }

    fn with_failing(settings: &FailureDetection, backends: usize, failing: impl Fn(usize) -> bool) -> Self {
        Self { fails: (0..backends).map(failing).collect(), ..Self::new(settings, backends) }
    }

    fn backend(&self, index: usize) -> Arc<Backend> {
        self.pool.backends()[index].clone()
    }

    fn is_up(&self) -> Vec<bool> {
        self.pool.backends().iter().map(|backend| backend.is_up()).collect()
    }

    fn ejections(&self, index: usize) -> u64 {
        self.backend(index).snapshot(self.now).ejections.values().sum()
    }

    fn all_ejections(&self) -> u64 {
        (0..self.fails.len()).map(|index| self.ejections(index)).sum()
    }

    /// How long until it may be probed.
    fn ejected_for(&self, index: usize) -> Option<Duration> {
        self.backend(index).snapshot(self.now).ejected_for
    }

    fn serve_all(&mut self, clients: &[Client]) {
        clients.iter().for_each(|client| self.serve(*client));
    }

    /// Gives the client a backend: one that is to be probed, or the next usable one, or any.
    fn serve(&mut self, client: Client) {
        self.pass(client.comes_after);
        let lease = self.pool.due_probe(self.now, |_| true).unwrap_or_else(|| {
            let is_overlooked = (0..self.fails.len()).any(|index| self.ejected_for(index) == Some(Duration::ZERO));
            assert!(!is_overlooked, "an ejection is over, and nobody may probe");
            let all = self.pool.backends();
            let usable: Vec<_> = all.iter().filter(|backend| backend.is_usable()).collect();
            let mut next = || {
                self.turn += 1;
                if usable.is_empty() { &all[self.turn % all.len()] } else { usable[self.turn % usable.len()] }
            };
            let first = next();
            Lease::take(if first.passes_turn() { next() } else { first }).expect("no limit")
        });
        self.open(lease, client);
    }

    fn open(&mut self, lease: Lease, client: Client) {
        let is_its = |backend: &Arc<Backend>| Arc::ptr_eq(backend, lease.backend());
        let index = self.pool.backends().iter().position(is_its).expect("one of the pool");
        lease.awaits_answer();
        let (ends, ends_badly) = (self.now + client.stays, client.misbehaves || self.fails[index]);
        self.open.push(Connection { lease, ends, ends_badly });
        self.pass(Duration::ZERO);
    }

    /// Time passes, and connections end in it.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        self.open.sort_by_key(|connection| connection.ends);
        let ended = self.open.iter().take_while(|connection| connection.ends <= until).count();
        for connection in self.open.drain(..ended).collect::<Vec<_>>() {
            self.now = connection.ends;
            if connection.ends_badly {
                let client = Some(IpAddr::from([192, 0, 2, 1]));
                self.pool.record_evidence(&connection.lease, Evidence::EarlyClose, client, self.now);
            } else {
                connection.lease.record_success(self.now);
            }
            self.check();
        }
        self.now = until;
    }

    fn check(&self) {
        let out = self.is_up().iter().filter(|is_up| !**is_up).count();
        assert!(out * 2 <= self.fails.len(), "{out} of {} are out", self.fails.len());
        for index in 0..self.fails.len() {
            let Some(left) = self.ejected_for(index) else { continue };
            let doublings = u32::try_from(self.ejections(index)).expect("few") - 1;
            let doubled = self.settings.ejection.saturating_mul(2u32.saturating_pow(doublings));
            let most = doubled.min(self.settings.max_ejection).mul_f64(JITTER);
            assert!(left <= most, "{left:?} after {doublings} doublings");
        }
    }
}

#[test]
fn connections_from_before_an_outage_are_no_evidence_after_it() {
    let mut world = World::with_failing(&by_default(), 2, |index| index == 0);
    let old: Vec<_> = (0..100).map(|_| Lease::take(&world.backend(0)).expect("no limit")).collect();
    world.serve_all(&[WELL_BEHAVED; 20]);
    let left = world.ejected_for(0).expect("it stands out");
    world.fails[0] = false;
    world.serve(Client { comes_after: left, ..WELL_BEHAVED });
    world.serve_all(&[WELL_BEHAVED; 20]);
    for lease in &old {
        world.pool.record_evidence(lease, Evidence::NoAnswer, None, world.now);
    }
    assert_eq!((world.is_up(), world.ejections(0)), (vec![true; 2], 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(SOME_CASES))]

    #[test]
    fn clients_alone_keep_no_healthy_backend_out(
        settings in settings(),
        backends in 1usize..=8,
        clients in clients_of_any_kind(),
    ) {
        let mut world = World::new(&settings, backends);
        world.serve_all(&clients);
        world.pass(LONGEST_STAY);
        let longest = (0..backends).filter_map(|index| world.ejected_for(index)).max();
        world.pass(longest.unwrap_or_default());
        // One probe for each.
        world.serve_all(&vec![WELL_BEHAVED; backends]);
        prop_assert_eq!(world.is_up(), vec![true; backends]);
    }

    #[test]
    fn backends_that_all_fail_stay(settings in settings(), backends in 2usize..=8, clients in clients_of_any_kind()) {
        let mut world = World::with_failing(&settings, backends, |_| true);
        world.serve_all(&clients);
        prop_assert_eq!(world.all_ejections(), 0);
    }

    #[test]
    fn the_only_backend_stays(settings in settings(), fails: bool, clients in clients_of_any_kind()) {
        let mut world = World::with_failing(&settings, 1, |_| fails);
        world.serve_all(&clients);
        prop_assert_eq!(world.all_ejections(), 0);
    }

    #[test]
    fn one_that_fails_is_out_after_five_failures_however_its_peers_share_their_eight_connections(
        backends in 2usize..=8,
        turns in prop::collection::vec(prop_oneof![Just(0), 1usize..8, Just(7)], 1..200),
    ) {
        let mut world = World::with_failing(&by_default(), backends, |index| index == 0);
        let (mut failed, mut served) = (0, 0);
        for turn in turns.into_iter().map(|turn| turn.min(backends - 1)) {
            let lease = Lease::take(&world.backend(turn)).expect("no limit");
            world.open(lease, WELL_BEHAVED);
            if turn > 0 {
                served += 1;
                continue;
            }
            failed += 1;
            let is_out = !world.is_up()[0];
            prop_assert!(is_out || failed < 5 || served < 8, "{} failed, {} served by its peers", failed, served);
            if backends == 2 {
                let is_plain = (failed >= 4 && served >= 4) || (failed >= 3 && served >= 8);
                prop_assert_eq!(is_out, is_plain, "{} failed, {} served by its peer", failed, served);
            }
            if is_out {
                break;
            }
        }
    }

    #[test]
    fn one_that_works_again_is_back_after_one_good_probe_and_is_judged_afresh(
        settings in settings(),
        backends in 2usize..=8,
        clients in clients(0.0),
    ) {
        let mut world = World::with_failing(&settings, backends, |index| index == 0);
        world.serve_all(&clients);
        world.pass(LONGEST_STAY);
        let Some(left) = world.ejected_for(0) else { return Ok(()) };
        world.fails[0] = false;
        world.serve(Client { comes_after: left, ..WELL_BEHAVED });
        prop_assert!(world.is_up()[0]);
        world.fails[0] = true;
        for _ in 1..settings.failures.get() {
            let lease = Lease::take(&world.backend(0)).expect("no limit");
            world.open(lease, WELL_BEHAVED);
            prop_assert!(world.is_up()[0], "for what was seen before it came back");
        }
    }

    #[test]
    fn the_same_history_is_judged_alike_at_any_age_of_the_pool(
        settings in settings(),
        fails in prop::collection::vec(any::<bool>(), 2..=8),
        clients in clients_of_any_kind(),
        older_by in 0u32..1 << 25,
        seed: u64,
    ) {
        let mut worlds = [0, older_by].map(|slots| {
            let mut world = World::with_failing(&settings, fails.len(), |index| fails[index]);
            world.pass(settings.window / 8 * slots);
            world
        });
        for (client, step) in clients.iter().zip(0..) {
            let states = worlds.each_mut().map(|world| {
                fastrand::seed(seed ^ step);
                world.serve(*client);
                world.is_up()
            });
            prop_assert_eq!(&states[0], &states[1]);
        }
    }
}

/// Its peers' longer records make up for a window of few connections: of 12 pools with 10,000 clients each, every
/// second of whom misbehaves, one backend may be ejected wrongly once, by a pool's first connections.
#[test]
fn half_of_all_clients_misbehaving_hardly_ever_ejects_a_healthy_backend() {
    const CLIENTS: u32 = 10_000;
    let mut ejections = 0;
    for (backends, gap) in [2, 3, 8].into_iter().flat_map(|backends| [10, 100, 500, 1000].map(|gap| (backends, gap))) {
        fastrand::seed(1);
        let mut random = fastrand::Rng::with_seed(1);
        let mut world = World::new(&by_default(), backends);
        for _ in 0..CLIENTS {
            let comes_after = Duration::from_millis(random.u64(0..2 * gap));
            world.serve(Client { comes_after, misbehaves: random.bool(), ..WELL_BEHAVED });
        }
        ejections += world.all_ejections();
    }
    assert!(ejections <= 1, "{ejections} ejections");
}
