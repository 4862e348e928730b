//! A pool as connections use it: who is next, how to reach it, where its times are recorded. Shared by all workers and listeners.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backends::Pool;
use crate::balancer::Balancer;
use crate::net::{DialOptions, Target};
use crate::telemetry::metric::PoolHistograms;

/// A pool, its balancer, and what dialling its backends needs.
pub struct Upstream {
    pub(super) balancer: Arc<Balancer>,
    pub(super) histograms: PoolHistograms,
    /// Whose turn it is among the pool's source addresses.
    next_source: AtomicUsize,
}

impl Upstream {
    /// Of one pool, for as long as the pool lives.
    pub fn new(pool: Arc<Pool>) -> Arc<Self> {
        let histograms = PoolHistograms::new(pool.name());
        Arc::new(Self { balancer: Balancer::new(pool), histograms, next_source: AtomicUsize::new(0) })
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        self.balancer.pool()
    }

    /// How a socket to a backend is made now.
    pub(super) fn dial_options(&self) -> DialOptions {
        let settings = self.pool().settings();
        DialOptions {
            timeout: settings.connect_timeout,
            nodelay: settings.tcp.nodelay,
            user_timeout: settings.tcp.user_timeout,
        }
    }

    /// The address that the next connection to `target` comes from: the next one of its family. `None`: the kernel
    /// chooses.
    pub(super) fn next_source(&self, target: &Target) -> Option<IpAddr> {
        let settings = self.pool().settings();
        let Target::Tcp(target) = target else { return None };
        if settings.source.is_empty() {
            return None;
        }
        let turn = self.next_source.fetch_add(1, Ordering::Relaxed);
        let fits = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
        let count = settings.source.iter().filter(fits).count().max(1);
        settings.source.iter().filter(fits).nth(turn % count).copied()
    }
}
