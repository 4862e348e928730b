//! A pool as connections use it: the choice of a backend, the way to reach it, and the histograms of both. Shared by
//! all workers and listeners.

use std::sync::Arc;

use crate::backends::{Connector, Pool};
use crate::balancer::Balancer;
use crate::telemetry::metric::PoolHistograms;

pub struct Upstream {
    pub(super) histograms: PoolHistograms,
    balancer: Arc<Balancer>,
    connector: Arc<Connector>,
}

impl Upstream {
    pub fn new(pool: Arc<Pool>) -> Arc<Self> {
        let histograms = PoolHistograms::new(pool.name());
        let connector = Arc::new(Connector::new(pool.clone()));
        Arc::new(Self { histograms, balancer: Balancer::new(pool), connector })
    }

    pub fn pool(&self) -> &Arc<Pool> {
        self.balancer.pool()
    }

    pub fn balancer(&self) -> &Arc<Balancer> {
        &self.balancer
    }

    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }
}
