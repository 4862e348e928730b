//! A configuration that runs: its pools, its listeners' frontends and their sockets. A reload applies another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admin::{Shown, ShownListener};
use crate::backends::{AdminState, BackendState};
use crate::config::{self, Config};
use crate::proxy::{Frontend, ListenerDeps};
use crate::telemetry::ListenerTotals;

use super::error::RunError;
use super::listen_sockets::ListenSockets;
use super::pools::Pools;

/// What runs for the configuration that was applied last.
pub(super) struct RunningConfig {
    deps: ListenerDeps,
    pools: Pools,
    pub(super) listen_sockets: ListenSockets,
    listeners: BTreeMap<String, RunningListener>,
    /// Listeners that a reload took away and that connections still hold: they are counted until the last one ends.
    departed: Vec<RunningListener>,
}

#[derive(Clone)]
struct RunningListener {
    settings: config::ListenerConfig,
    frontend: Arc<Frontend>,
}

impl RunningConfig {
    /// Nothing runs yet.
    pub(super) fn new(deps: ListenerDeps, listen_sockets: ListenSockets) -> Self {
        let pools = Pools::new(deps.workers);
        Self { deps, pools, listen_sockets, listeners: BTreeMap::new(), departed: Vec::new() }
    }

    /// Applies `config`. Open connections continue as they began, and what stays the same keeps its state.
    ///
    /// # Errors
    /// An address can't be had; nothing has changed.
    pub(super) async fn apply(&mut self, config: &Config) -> Result<(), RunError> {
        let plan = self.listen_sockets.plan(config)?;
        self.pools.apply(&config.pools).await;
        let listeners: BTreeMap<String, RunningListener> =
            config.listeners.iter().map(|listener| (listener.name.clone(), self.listening(listener))).collect();
        self.listen_sockets.apply(plan, |name| listeners[name].frontend.clone()).await;
        for (name, before) in std::mem::replace(&mut self.listeners, listeners) {
            match self.listeners.get(&name) {
                Some(now) if Arc::ptr_eq(&now.frontend, &before.frontend) => {}
                Some(_) => before.frontend.mark_replaced(),
                None => {
                    before.frontend.mark_replaced();
                    self.departed.push(before);
                }
            }
        }
        self.pools.keep_only(&config.pools);
        Ok(())
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
        self.pools.set_admin_state(pool, backend, admin_state)
    }

    /// A listener that is as it was keeps its service; one that has changed gets another, which goes on with its
    /// counts.
    fn listening(&self, settings: &config::ListenerConfig) -> RunningListener {
        let known = self.listeners.get(&settings.name);
        if let Some(same) = known.filter(|known| known.settings == *settings) {
            return same.clone();
        }
        let before = known.or_else(|| self.departed.iter().find(|gone| gone.settings.name == settings.name));
        let upstream_of = |pool: &str| self.pools.upstream(pool);
        let frontend = Frontend::new(settings, upstream_of, &self.deps, before.map(|before| &*before.frontend));
        RunningListener { settings: settings.clone(), frontend }
    }

    /// What the admin server shows.
    pub(super) fn shown(&mut self) -> Shown {
        let listeners = &self.listeners;
        self.departed.retain(|gone| {
            let is_active = ListenerTotals::sum(&gone.frontend.stats().counters).active() > 0;
            is_active && !listeners.contains_key(&gone.settings.name)
        });
        let present =
            self.listeners.values().map(|present| (present, self.listen_sockets.addresses(&present.settings)));
        let departed = self.departed.iter().map(|departed| (departed, Vec::new()));
        let show =
            |(RunningListener { settings, frontend }, addresses): (&RunningListener, Vec<String>)| ShownListener {
                stats: frontend.stats().clone(),
                addresses,
                mode: settings.mode.as_str(),
                pool: settings.pool.clone(),
            };
        Shown { listeners: present.chain(departed).map(show).collect(), pools: self.pools.all() }
    }
}
