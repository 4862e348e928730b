//! A pool as connections use it: who is next, how to reach it, where its times are recorded. Shared by all workers and
//! listeners.

use std::sync::Arc;

use crate::backends::{Connector, Pool};
use crate::balancer::Balancer;
use crate::telemetry::metric::PoolHistograms;

/// A pool, its balancer, and the way to its backends.
pub struct Upstream {
    pub(super) histograms: PoolHistograms,
    balancer: Arc<Balancer>,
    connector: Arc<Connector>,
}

impl Upstream {
    /// Of one pool, for as long as the pool lives.
    pub fn new(pool: Arc<Pool>) -> Arc<Self> {
        let histograms = PoolHistograms::new(pool.name());
        let connector = Arc::new(Connector::new(pool.clone()));
        Arc::new(Self { histograms, balancer: Balancer::new(pool), connector })
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        self.balancer.pool()
    }

    /// Chooses among its backends.
    pub fn balancer(&self) -> &Arc<Balancer> {
        &self.balancer
    }

    /// Connects to them.
    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }
}
