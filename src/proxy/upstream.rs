//! A pool as connections use it: the choice of a backend and the way to reach it. Shared by all workers and listeners.

use std::sync::Arc;

use crate::backends::{Connector, Pool};
use crate::balancer::Balancer;

pub struct Upstream {
    balancer: Arc<Balancer>,
    connector: Arc<Connector>,
}

impl Upstream {
    pub fn new(pool: Arc<Pool>) -> Arc<Self> {
        let connector = Arc::new(Connector::new(pool.clone()));
        Arc::new(Self { balancer: Balancer::new(pool), connector })
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
