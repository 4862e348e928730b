//! The pools that run, and the tasks of each: they follow a reload, and end with their pool. Every change of a pool by
//! the main loop's commands is made here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::backends::{AdminState, BackendState, Membership, Pool, watch_health};
use crate::config;
use crate::proxy::Upstream;

/// A start or a reload waits this long for the names of backends: one that doesn't resolve mustn't keep the rest from
/// working.
const FIRST_RESOLVE: Duration = Duration::from_secs(1);

/// All pools, by name.
pub(super) struct Pools {
    workers: usize,
    running: BTreeMap<String, RunningPool>,
}

struct RunningPool {
    upstream: Arc<Upstream>,
    settings: config::PoolConfig,
    membership: Rc<Membership>,
    /// Its names are followed, and its tables kept up. Dropped, they end.
    _following: JoinSet<Infallible>,
    checking: JoinSet<Infallible>,
}

impl Pools {
    /// None yet.
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, running: BTreeMap::new() }
    }

    /// New pools start; those that stay continue under their new settings, with all that is known of their backends.
    pub(super) async fn apply(&mut self, wanted: &[config::PoolConfig]) {
        for settings in wanted {
            match self.running.get_mut(&settings.name) {
                Some(pool) => pool.reconfigure(settings),
                None => {
                    let pool = RunningPool::start(settings, self.workers);
                    self.running.insert(settings.name.clone(), pool);
                }
            }
        }
        let asked = async {
            for pool in self.running.values() {
                pool.membership.asked_once().await;
            }
        };
        // A name that doesn't resolve mustn't keep the rest from working.
        let _ = tokio::time::timeout(FIRST_RESOLVE, asked).await;
        for pool in self.running.values() {
            pool.membership.publish();
            // The answer to the reload is not to come before the change.
            pool.upstream.balancer().rebuild();
        }
    }

    /// Does what an operator wants of a backend, and gives the state that it has then.
    ///
    /// # Errors
    /// What there is not: the pool, or the backend.
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
        let is_news = known.set_admin_state(admin_state, Instant::now());
        let state = known.state();
        if is_news {
            upstream.balancer().rebuild();
            tracing::info!(pool, backend, state = state.as_str(), "changed by the API");
        }
        Ok(state)
    }

    /// The pools that are not wanted any more end; connections to them go on.
    pub(super) fn keep_only(&mut self, wanted: &[config::PoolConfig]) {
        self.running.retain(|name, running| {
            let is_wanted = wanted.iter().any(|pool| pool.name == *name);
            if !is_wanted {
                running.upstream.pool().mark_removed();
            }
            is_wanted
        });
    }

    /// What serves connections to the pool of this name.
    pub(super) fn upstream(&self, name: &str) -> Arc<Upstream> {
        self.running.get(name).expect("a valid configuration has every pool that it names").upstream.clone()
    }

    /// In the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Pool>> {
        self.running.values().map(|pool| pool.upstream.pool().clone()).collect()
    }
}

impl RunningPool {
    fn start(settings: &config::PoolConfig, workers: usize) -> Self {
        let pool = Pool::new(settings.clone(), workers, Instant::now());
        let membership = Rc::new(Membership::new(pool.clone()));
        let upstream = Upstream::new(pool);
        let mut following = JoinSet::new();
        following.spawn_local(membership.clone().follow_names());
        let balancer = upstream.balancer().clone();
        following.spawn_local(async move { balancer.follow_pool().await });
        let checking = check(&upstream, settings);
        Self { upstream, settings: settings.clone(), membership, _following: following, checking }
    }

    /// Its backends are the membership's to publish.
    fn reconfigure(&mut self, settings: &config::PoolConfig) {
        if self.settings == *settings {
            return;
        }
        self.upstream.pool().reconfigure(settings.clone(), Instant::now());
        self.membership.reconfigure();
        if self.settings.health_check != settings.health_check {
            self.checking = check(&self.upstream, settings);
        }
        self.settings = settings.clone();
    }
}

fn check(upstream: &Upstream, settings: &config::PoolConfig) -> JoinSet<Infallible> {
    let mut checking = JoinSet::new();
    if let Some(settings) = settings.health_check.clone() {
        checking.spawn_local(watch_health(upstream.connector().clone(), settings));
    }
    checking
}
