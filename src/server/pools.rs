//! The running pools and the tasks of each. Every change of a pool by the main loop's commands is made here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::backends::{
    Backend, CarriedPool, Membership, Order, Pool, Refusal, answer_for_names, follow_roles, watch_health,
};
use crate::config;
use crate::lifecycle::Cutter;
use crate::proxy::Upstream;

use super::error::RunError;

/// A start or a reload waits for the names of backends, but not longer than this: one that doesn't resolve mustn't keep
/// the others from working.
const FIRST_RESOLVE: Duration = Duration::from_secs(1);

/// What an upgrade carries on, by the names of the pools.
pub(super) type CarriedPools = BTreeMap<String, CarriedPool>;

/// All pools, by name.
pub(super) struct Pools {
    workers: usize,
    cutter: Cutter,
    running: BTreeMap<String, RunningPool>,
    /// Of the old process, until a pool of that name starts.
    carried: CarriedPools,
}

pub(super) struct RunningPool {
    pub(super) upstream: Arc<Upstream>,
    settings: config::PoolConfig,
    pub(super) membership: Rc<Membership>,
    /// Resolve its names, see backends off, rebuild its balancer's table, call waiting clients, follow its roles. They
    /// end when this is dropped.
    _upkeep: JoinSet<Infallible>,
    health_checks: JoinSet<Infallible>,
}

impl Pools {
    /// Without one yet. `carried`: what the old process of an upgrade knew.
    pub(super) fn new(workers: usize, cutter: Cutter, carried: CarriedPools) -> Self {
        Self { workers, cutter, running: BTreeMap::new(), carried }
    }

    /// For the process that an upgrade starts.
    pub(super) fn carried(&self) -> CarriedPools {
        let now = Instant::now();
        let entry = |(name, pool): (&String, &RunningPool)| {
            let (turn, backends) = (pool.upstream.balancer().turn(), pool.upstream.pool().carried(now));
            (name.clone(), CarriedPool { turn, backends, wishes: pool.membership.carried() })
        };
        self.running.iter().map(entry).collect()
    }

    /// Says what of the old process has found no place here, after the first [`Pools::apply`].
    ///
    /// # Errors
    /// A pool has no backend, and the old process has some for it: only names can be the reason. It must not end then.
    pub(super) fn report_missing(&mut self) -> Result<(), RunError> {
        for (pool, _) in std::mem::take(&mut self.carried) {
            tracing::info!(pool, "the old process had this pool, and it is not here");
        }
        for (name, running) in &self.running {
            let pool = running.upstream.pool();
            let missing = pool.missing();
            if pool.has_own_backends() && pool.backends().is_empty() && !missing.is_empty() {
                return Err(RunError::NoBackend { pool: name.clone() });
            }
            for backend in missing {
                tracing::info!(
                    pool = name,
                    backend,
                    "the old process had this backend, and it is not here, or not yet"
                );
            }
        }
        Ok(())
    }

    /// New pools start; those that stay continue under their new settings, with all that is known of their backends.
    pub(super) async fn apply(&mut self, wanted: &[config::PoolConfig]) {
        for settings in wanted {
            match self.running.get_mut(&settings.name) {
                Some(pool) => pool.reconfigure(settings),
                None => {
                    let carried = self.carried.remove(&settings.name).unwrap_or_default();
                    let pool = RunningPool::start(settings, self.workers, self.cutter.clone(), carried);
                    self.running.insert(settings.name.clone(), pool);
                }
            }
        }
        let asked = async {
            for pool in self.running.values() {
                pool.membership.asked_once().await;
            }
        };
        let _ = tokio::time::timeout(FIRST_RESOLVE, asked).await;
        for pool in self.running.values() {
            pool.membership.publish();
            // Now, so that picks see the change when the reload is reported as done.
            pool.upstream.balancer().rebuild();
        }
    }

    /// A pool that runs.
    pub(super) fn find(&self, name: &str) -> Option<&RunningPool> {
        self.running.get(name)
    }

    /// What is said of a name that no pool has.
    pub(super) fn unknown(&self, name: &str) -> Refusal {
        let known: Vec<String> = self.running.keys().cloned().collect();
        Refusal::not_found(&format!("there is no pool {name}"), name, &known)
    }

    /// In the order of their names.
    pub(super) fn running(&self) -> impl Iterator<Item = &RunningPool> {
        self.running.values()
    }

    /// Ends the pools that are not wanted any more; open connections to them stay open.
    pub(super) fn remove_others(&mut self, wanted: &[config::PoolConfig]) {
        self.running.retain(|name, running| {
            let is_wanted = wanted.iter().any(|pool| pool.name == *name);
            if !is_wanted {
                running.upstream.pool().mark_removed();
            }
            is_wanted
        });
    }

    pub(super) fn upstream(&self, name: &str) -> Arc<Upstream> {
        self.running.get(name).expect("a valid configuration has every pool that it names").upstream.clone()
    }

    /// In the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Pool>> {
        self.running.values().map(|pool| pool.upstream.pool().clone()).collect()
    }
}

impl RunningPool {
    fn start(settings: &config::PoolConfig, workers: usize, cutter: Cutter, carried: CarriedPool) -> Self {
        let pool = Pool::new(settings.clone(), workers, cutter, Instant::now());
        pool.carry_on(carried.backends, Instant::now());
        let membership = Rc::new(Membership::new(pool.clone(), carried.wishes));
        let upstream = Upstream::new(pool.clone());
        upstream.balancer().continue_at(carried.turn);
        let mut upkeep = JoinSet::new();
        upkeep.spawn_local(follow_roles(pool.clone()));
        upkeep.spawn_local(answer_for_names(pool));
        upkeep.spawn_local(membership.clone().follow_names());
        let leaving = membership.clone();
        upkeep.spawn_local(async move { leaving.follow_leaving().await });
        let balancer = upstream.balancer().clone();
        upkeep.spawn_local(async move { balancer.follow_pool().await });
        let pool = upstream.pool().clone();
        upkeep.spawn_local(async move { pool.call_at_events().await });
        let health_checks = start_health_checks(&upstream, settings);
        Self { upstream, settings: settings.clone(), membership, _upkeep: upkeep, health_checks }
    }

    /// Carries out an order about backends; the very next pick sees it.
    pub(super) fn steer(&self, address: &str, order: Order, by: &str) -> Result<Vec<Arc<Backend>>, Refusal> {
        let backends = self.membership.steer(address, order, by, Instant::now())?;
        self.upstream.balancer().rebuild();
        Ok(backends)
    }

    /// Waits until each of its names has given something, or some time is over. The very next pick sees what came.
    pub(super) async fn answered(&self) {
        let _ = tokio::time::timeout(FIRST_RESOLVE, self.membership.asked_once()).await;
        self.membership.publish();
        // Now, so that picks see the change when it is reported as done.
        self.upstream.balancer().rebuild();
    }

    /// Takes new settings, but for the backends: those change when the membership is published.
    fn reconfigure(&mut self, settings: &config::PoolConfig) {
        if self.settings == *settings {
            return;
        }
        self.upstream.pool().reconfigure(settings.clone(), Instant::now());
        self.membership.reconfigure();
        if self.settings.health_check != settings.health_check {
            self.health_checks = start_health_checks(&self.upstream, settings);
        }
        self.settings = settings.clone();
    }
}

fn start_health_checks(upstream: &Upstream, settings: &config::PoolConfig) -> JoinSet<Infallible> {
    let mut health_checks = JoinSet::new();
    if let Some(settings) = settings.health_check.clone() {
        health_checks.spawn_local(watch_health(upstream.connector().clone(), settings));
    }
    health_checks
}
