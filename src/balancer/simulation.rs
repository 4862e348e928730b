//! A pool without sockets and a simulated clock, for the property tests.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::backends::{Backend, BackendState, Endpoint, Evidence, Lease, Pool};
use crate::config::{self, FailureDetection, Policy};
use crate::lifecycle::Cutter;
use crate::net::{ConnectFailure, Target};

use super::pick::Balancer;
use super::pick_request::{PickError, PickRequest};

const POLICIES: [Policy; 5] =
    [Policy::First, Policy::RoundRobin, Policy::LeastConnections, Policy::RandomTwo, Policy::SourceHash];

fn count(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

pub(super) fn settings(policy: Policy, failure_detection: Option<FailureDetection>) -> config::PoolConfig {
    config::PoolConfig { policy, failure_detection, ..config::PoolConfig::example() }
}

pub(super) fn detection() -> FailureDetection {
    let second = Duration::from_secs(1);
    FailureDetection {
        failures: count(2),
        window: 10 * second,
        ejection: 10 * second,
        max_ejection: 60 * second,
        count_early_close: true,
        count_5xx: false,
        count_silence: false,
    }
}

pub(super) fn endpoint(index: usize, weight: u16, rank: u8, max_connections: usize) -> Endpoint {
    let port = u16::try_from(index + 1).expect("few backends");
    Endpoint {
        weight,
        rank,
        max_connections: NonZeroUsize::new(max_connections),
        ..Endpoint::new(Target::Tcp(SocketAddr::from(([10, 0, 0, 1], port))))
    }
}

pub(super) fn weighted(weights: &[u16]) -> Vec<Endpoint> {
    weights.iter().enumerate().map(|(index, weight)| endpoint(index, *weight, 0, 0)).collect()
}

pub(super) fn policies() -> impl Strategy<Value = Policy> {
    prop::sample::select(POLICIES.to_vec())
}

pub(super) fn clients() -> impl Strategy<Value = IpAddr> {
    (0u8..64).prop_map(|host| IpAddr::from([192, 0, 2, host]))
}

/// A pool, its balancer, the clock, and the open connections.
pub(super) struct World {
    pub(super) balancer: Arc<Balancer>,
    pub(super) now: Instant,
    pub(super) leases: Vec<Lease>,
    pub(super) made: u64,
}

impl World {
    pub(super) fn new(settings: config::PoolConfig, backends: Vec<Endpoint>) -> Self {
        let now = Instant::now();
        let pool = Pool::new(settings, 2, Cutter::default(), now);
        pool.replace(backends, now);
        Self { balancer: Balancer::new(pool), now, leases: Vec::new(), made: 0 }
    }

    pub(super) fn backends(&self) -> Arc<Vec<Arc<Backend>>> {
        self.balancer.pool().backends()
    }

    pub(super) fn index_of(&self, backend: &Arc<Backend>) -> usize {
        self.backends().iter().position(|known| Arc::ptr_eq(known, backend)).expect("one of the pool")
    }

    /// By a table that is rebuilt first; a running balancer's is at most milliseconds old.
    pub(super) fn pick(&self, client: Option<IpAddr>, tried: &[Arc<Backend>]) -> Result<Lease, PickError> {
        self.balancer.rebuild();
        self.pick_with_old_table(client, tried)
    }

    /// By the table that was built last.
    pub(super) fn pick_with_old_table(
        &self,
        client: Option<IpAddr>,
        tried: &[Arc<Backend>],
    ) -> Result<Lease, PickError> {
        self.balancer.pick(&PickRequest { now: self.now, client, tried })
    }

    /// The indices of the backends that `count` connections get, all of which stay open.
    pub(super) fn pick_and_hold(&mut self, count: usize) -> Vec<usize> {
        let pick = |_| {
            let lease = self.pick(None, &[]).expect("there is room");
            let index = self.index_of(lease.backend());
            self.leases.push(lease);
            index
        };
        (0..count).map(pick).collect()
    }

    pub(super) fn states(&self) -> Vec<BackendState> {
        self.backends().iter().map(|backend| backend.state()).collect()
    }
}

/// What happens to a world.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Wait(Duration),
    /// A client connects, and the connection is made.
    Connects(IpAddr),
    /// A client connects, and the backend refuses.
    IsRefused(IpAddr),
    /// An open one gets an answer, and ends.
    EndsWell(prop::sample::Index),
    /// The backend closes it early.
    EndsEarly(prop::sample::Index),
    /// The client leaves.
    Leaves(prop::sample::Index),
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => (0u64..12_000).prop_map(|ms| Event::Wait(Duration::from_millis(ms))),
        6 => clients().prop_map(Event::Connects),
        4 => clients().prop_map(Event::IsRefused),
        2 => any::<prop::sample::Index>().prop_map(Event::EndsWell),
        2 => any::<prop::sample::Index>().prop_map(Event::EndsEarly),
        2 => any::<prop::sample::Index>().prop_map(Event::Leaves),
    ];
    prop::collection::vec(event, 1..100)
}

impl World {
    /// Lets it happen; gives the index of the backend that a new connection got.
    pub(super) fn take(&mut self, event: Event) -> Option<Result<usize, PickError>> {
        match event {
            Event::Wait(time) => self.now += time,
            Event::Connects(client) | Event::IsRefused(client) => {
                let picked = self.pick(Some(client), &[]);
                let index = picked.as_ref().map(|lease| self.index_of(lease.backend())).map_err(|error| *error);
                match (picked, event) {
                    (Ok(lease), Event::Connects(_)) => {
                        lease.connected(Duration::from_millis(1), self.now);
                        self.made += 1;
                        self.leases.push(lease);
                    }
                    (Ok(lease), _) => lease.connect_failed(ConnectFailure::Refused, self.now),
                    (Err(_), _) => {}
                }
                return Some(index);
            }
            _ if self.leases.is_empty() => {}
            Event::EndsWell(which) => self.end(which).record_success(self.now),
            Event::EndsEarly(which) => {
                let lease = self.end(which);
                self.balancer.pool().record_evidence(&lease, Evidence::EarlyClose, None, self.now);
            }
            Event::Leaves(which) => drop(self.end(which)),
        }
        None
    }

    fn end(&mut self, which: prop::sample::Index) -> Lease {
        self.leases.swap_remove(which.index(self.leases.len()))
    }
}
