//! The pools that run, and the tasks that have an eye on each: they follow a reload, and end with their pool.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::backends::{Discovery, Pool, watch_health};
use crate::config;
use crate::proxy::Upstream;

/// A start or a reload waits this long for the names of backends: one that doesn't resolve mustn't keep the rest from working.
const FIRST_RESOLVE: Duration = Duration::from_secs(1);

/// All pools, by name.
pub(super) struct Pools {
    workers: usize,
    running: BTreeMap<String, RunningPool>,
}

struct RunningPool {
    upstream: Arc<Upstream>,
    settings: config::PoolConfig,
    discovery: Rc<Discovery>,
    /// Dropped, they end.
    _looking: JoinSet<Infallible>,
    checking: JoinSet<Infallible>,
}

impl Pools {
    /// None yet.
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, running: BTreeMap::new() }
    }

    /// New pools start; those that stay go on under their new settings, with all that is known of their backends.
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
        // All at once: pools without a name server don't add up.
        let mut looks = JoinSet::new();
        for pool in self.running.values().filter(|pool| pool.discovery.has_unresolved()) {
            looks.spawn_local(look(pool.discovery.clone(), pool.settings.name.clone()));
        }
        let all = async { while looks.join_next().await.is_some() {} };
        // A name that doesn't resolve mustn't keep the rest from working.
        let _ = tokio::time::timeout(FIRST_RESOLVE, all).await;
        self.running.values().for_each(|pool| pool.discovery.publish());
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
        let discovery = Rc::new(Discovery::new(pool.clone()));
        let mut looking = JoinSet::new();
        looking.spawn_local(discovery.clone().keep_looking());
        let checking = check(&pool, settings);
        Self { upstream: Upstream::new(pool), settings: settings.clone(), discovery, _looking: looking, checking }
    }

    /// Its backends are the discovery's to publish.
    fn reconfigure(&mut self, settings: &config::PoolConfig) {
        if self.settings == *settings {
            return;
        }
        let pool = self.upstream.pool();
        pool.reconfigure(settings.clone(), Instant::now());
        self.discovery.reconfigure();
        if self.settings.health_check != settings.health_check {
            self.checking = check(pool, settings);
        }
        self.settings = settings.clone();
    }
}

async fn look(discovery: Rc<Discovery>, pool: String) {
    if let Err(error) = discovery.look_once().await {
        tracing::warn!(pool, %error, "names can't be resolved yet");
    }
}

fn check(pool: &Arc<Pool>, settings: &config::PoolConfig) -> JoinSet<Infallible> {
    let mut checking = JoinSet::new();
    if let Some(settings) = settings.health_check.clone() {
        checking.spawn_local(watch_health(pool.clone(), settings));
    }
    checking
}
