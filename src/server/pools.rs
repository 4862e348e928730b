//! The running pools and the tasks of each. Every change of a pool by the main loop's commands is made here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::backends::{AdminState, BackendState, Membership, Pool, follow_roles, watch_health};
use crate::config;
use crate::lifecycle::Cutter;
use crate::proxy::Upstream;

/// A start or a reload waits for the names of backends, but not longer than this: one that doesn't resolve mustn't keep
/// the others from working.
const FIRST_RESOLVE: Duration = Duration::from_secs(1);

/// All pools, by name.
pub(super) struct Pools {
    workers: usize,
    cutter: Cutter,
    running: BTreeMap<String, RunningPool>,
}

struct RunningPool {
    upstream: Arc<Upstream>,
    settings: config::PoolConfig,
    membership: Rc<Membership>,
    /// Resolve its names, rebuild its balancer's table, call waiting clients, follow its roles. They end when this is
    /// dropped.
    _upkeep: JoinSet<Infallible>,
    health_checks: JoinSet<Infallible>,
}

impl Pools {
    pub(super) fn new(workers: usize, cutter: Cutter) -> Self {
        Self { workers, cutter, running: BTreeMap::new() }
    }

    /// New pools start; those that stay continue under their new settings, with all that is known of their backends.
    pub(super) async fn apply(&mut self, wanted: &[config::PoolConfig]) {
        for settings in wanted {
            match self.running.get_mut(&settings.name) {
                Some(pool) => pool.reconfigure(settings),
                None => {
                    let pool = RunningPool::start(settings, self.workers, self.cutter.clone());
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

    /// Drains, disables or enables a backend, and returns its state afterwards.
    ///
    /// # Errors
    /// There is no such pool or backend.
    pub(super) fn set_admin_state(
        &self,
        pool: &str,
        backend: &str,
        admin_state: AdminState,
    ) -> Result<BackendState, String> {
        let upstream = &self.running.get(pool).ok_or_else(|| format!("there is no pool {pool}"))?.upstream;
        let backends = upstream.pool().backends();
        let known = backends.iter().find(|known| known.label() == backend);
        let known = known.ok_or_else(|| format!("pool {pool} has no backend {backend}"))?;
        let has_changed = known.set_admin_state(admin_state, Instant::now());
        let state = known.state();
        if has_changed {
            upstream.balancer().rebuild();
            tracing::info!(event = "operator", pool, backend, state = state.as_str(), "changed by the API");
        }
        Ok(state)
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
    fn start(settings: &config::PoolConfig, workers: usize, cutter: Cutter) -> Self {
        let pool = Pool::new(settings.clone(), workers, cutter, Instant::now());
        let membership = Rc::new(Membership::new(pool.clone()));
        let upstream = Upstream::new(pool.clone());
        let mut upkeep = JoinSet::new();
        upkeep.spawn_local(follow_roles(pool));
        upkeep.spawn_local(membership.clone().follow_names());
        let balancer = upstream.balancer().clone();
        upkeep.spawn_local(async move { balancer.follow_pool().await });
        let pool = upstream.pool().clone();
        upkeep.spawn_local(async move { pool.call_at_events().await });
        let health_checks = start_health_checks(&upstream, settings);
        Self { upstream, settings: settings.clone(), membership, _upkeep: upkeep, health_checks }
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
