//! The configuration that runs: its pools, its listeners' frontends and their sockets. A reload applies another one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::admin::{Shown, ShownListener};
use crate::config::{self, BackendAddress, Config, SourceAddress};
use crate::lifecycle::Cutter;
use crate::net;
use crate::proxy::{Frontend, ListenerDeps};
use crate::telemetry::ListenerTotals;

use super::error::RunError;
use super::listen_sockets::{ListenSockets, SharedSockets};
use super::own_backends::warn_of_own_backends;
use super::pool_state;
use super::pools::{CarriedPools, Pools};
use super::session_keys;
use super::tls_upkeep::keep_up;

pub(super) struct RunningConfig {
    deps: ListenerDeps,
    pools: Pools,
    pub(super) listen_sockets: ListenSockets,
    listeners: BTreeMap<String, RunningListener>,
    /// Listeners that a reload removed, and that have open connections: these are counted until the last one ends.
    removed: Vec<RunningListener>,
}

#[derive(Clone)]
struct RunningListener {
    settings: config::ListenerConfig,
    frontend: Arc<Frontend>,
    /// Ends when the last clone is dropped.
    tls_upkeep: Option<Rc<JoinSet<Infallible>>>,
}

impl RunningConfig {
    /// Nothing runs yet.
    pub(super) fn new(
        deps: ListenerDeps,
        listen_sockets: ListenSockets,
        cutter: Cutter,
        carried: CarriedPools,
    ) -> Self {
        let pools = Pools::new(deps.workers, cutter, carried);
        Self { deps, pools, listen_sockets, listeners: BTreeMap::new(), removed: Vec::new() }
    }

    /// Applies `config`. Open connections continue as they began, and what stays the same keeps its state.
    ///
    /// # Errors
    /// An address can't be bound, or not be connected from; nothing has changed.
    pub(super) async fn apply(&mut self, config: &Config) -> Result<(), RunError> {
        // The only steps that can fail come first. Pools come before the listeners whose frontends refer to them.
        check_sources(&config.pools)?;
        let plan = self.listen_sockets.plan(config).await?;
        self.pools.apply(&config.pools).await;
        let listeners: BTreeMap<String, RunningListener> =
            config.listeners.iter().map(|listener| (listener.name.clone(), self.listener(listener))).collect();
        self.listen_sockets.apply(plan, |name| listeners[name].frontend.clone()).await;
        for (name, before) in std::mem::replace(&mut self.listeners, listeners) {
            match self.listeners.get(&name) {
                Some(now) if Arc::ptr_eq(&now.frontend, &before.frontend) => {}
                Some(_) => before.frontend.mark_replaced(),
                None => {
                    before.frontend.mark_replaced();
                    self.removed.push(RunningListener { tls_upkeep: None, ..before });
                }
            }
        }
        self.pools.remove_others(&config.pools);
        warn_of_own_backends(&config.listeners, &self.pools, &self.listen_sockets);
        Ok(())
    }

    /// Whether it could be applied now, as far as this can be told without changing anything.
    ///
    /// # Errors
    /// An address can't be bound, or not be connected from.
    pub(super) async fn check(&self, config: &Config) -> Result<(), RunError> {
        check_sources(&config.pools)?;
        self.listen_sockets.check(config).await
    }

    /// What an upgrade passes on: all sockets, the state of the pools, and the keys of TLS sessions.
    pub(super) fn passed_on(&self) -> Vec<(String, SharedSockets)> {
        let with_tls = self.listeners.iter().filter_map(|(name, it)| Some((name, it.settings.tls.as_ref()?)));
        // Where there is no file for a pipe, clients begin new sessions.
        let keys = with_tls.filter_map(|(name, tls)| session_keys::pass(name, tls).ok());
        let state = pool_state::pass(&self.pools);
        self.listen_sockets.sockets().into_iter().chain(state).chain(keys).collect()
    }

    /// Ends the taking over, if this process was started by an upgrade: resumes TLS sessions of the old one, and says
    /// what was not taken over.
    ///
    /// # Errors
    /// The old process can serve what this one can't: it is to go on.
    pub(super) fn finish_take_over(&mut self) -> Result<(), RunError> {
        self.pools.report_missing()?;
        for (name, RunningListener { settings, .. }) in &self.listeners {
            if let Some(tls) = &settings.tls {
                session_keys::take(name, tls, &mut self.listen_sockets);
            }
        }
        Ok(())
    }

    /// The pools that it runs.
    pub(super) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// An unchanged listener keeps its frontend; a changed one gets a new frontend, in which its counts continue.
    fn listener(&self, settings: &config::ListenerConfig) -> RunningListener {
        let known = self.listeners.get(&settings.name);
        let (settings, tls_upkeep) = keep_tls(known, settings);
        if let Some(same) = known.filter(|known| known.settings == settings) {
            return same.clone();
        }
        // Also the counts of one that was removed and comes back while connections of it are open.
        let before = known.or_else(|| self.removed.iter().find(|removed| removed.settings.name == settings.name));
        let upstream_of = |pool: &str| self.pools.upstream(pool);
        let frontend = Frontend::new(&settings, upstream_of, &self.deps, before.map(|before| &*before.frontend));
        RunningListener { settings, frontend, tls_upkeep }
    }

    /// What the admin server shows.
    pub(super) fn shown(&mut self) -> Shown {
        let listeners = &self.listeners;
        self.removed.retain(|removed| {
            let is_active = ListenerTotals::sum(&removed.frontend.stats().counters).active() > 0;
            is_active && !listeners.contains_key(&removed.settings.name)
        });
        let present =
            self.listeners.values().map(|present| present.shown(self.listen_sockets.addresses(&present.settings)));
        let removed = self.removed.iter().map(|removed| removed.shown(Vec::new()));
        Shown { listeners: present.chain(removed).collect(), pools: self.pools.all() }
    }
}

/// Whether this process may connect as pools want it to. Warns where the kernel would pass answers on to clients.
fn check_sources(pools: &[config::PoolConfig]) -> Result<(), RunError> {
    for pool in pools.iter().filter(|pool| pool.source == SourceAddress::Client) {
        let name = &pool.name;
        net::check_foreign_sources().map_err(|source| RunError::ClientSource { pool: name.clone(), source })?;
        for (family, is_ipv4) in [("IPv4", true), ("IPv6", false)] {
            let is_used = |backend: &config::BackendConfig| match &backend.address {
                BackendAddress::Address(target) => target.ip_and_port().is_some_and(|ip| ip.is_ipv4() == is_ipv4),
                BackendAddress::Name(..) | BackendAddress::Srv(_) => false,
            };
            // Whoever can't find out doesn't know of a lack.
            if pool.backends.iter().any(is_used) && !net::has_local_route(is_ipv4).unwrap_or(true) {
                tracing::warn!(
                    pool = name,
                    family,
                    "`source: client`: no route brings answers to clients' addresses here; add a `local` route and a \
                     rule for it (docs/guide/client-address.md)"
                );
            }
        }
    }
    Ok(())
}

/// The same with the TLS that runs, where its settings are the same: sessions can be resumed, and open connections'
/// frontends need no replacing. It takes over what the files hold now.
fn keep_tls(
    known: Option<&RunningListener>,
    settings: &config::ListenerConfig,
) -> (config::ListenerConfig, Option<Rc<JoinSet<Infallible>>>) {
    let mut settings = settings.clone();
    let Some(now) = &settings.tls else { return (settings, None) };
    if let Some(known) = known
        && let Some(before) = known.settings.tls.as_ref().filter(|before| *before == now)
    {
        before.take_over(now);
        settings.tls = Some(before.clone());
        return (settings, known.tls_upkeep.clone());
    }
    let mut upkeep = JoinSet::new();
    upkeep.spawn_local(keep_up(settings.name.clone(), now.clone()));
    (settings, Some(Rc::new(upkeep)))
}

impl RunningListener {
    fn shown(&self, addresses: Vec<String>) -> ShownListener {
        ShownListener {
            stats: self.frontend.stats().clone(),
            addresses,
            mode: self.settings.mode.as_str(),
            pool: self.settings.pool.clone(),
            tls: self.settings.tls.clone(),
        }
    }
}
