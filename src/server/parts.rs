//! What a configuration comes to while it runs: pools, services, doors. A reload makes them follow another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admin::{Shown, ShownListener};
use crate::config::{self, Config};
use crate::proxy::{Service, Shared};
use crate::telemetry::ListenerTotals;

use super::doors::Doors;
use super::pools::Pools;
use super::run::RunError;

pub(super) struct Parts {
    shared: Shared,
    pools: Pools,
    pub(super) doors: Doors,
    listeners: BTreeMap<String, Listening>,
    /// Listeners that a reload took away and that connections still hold: they are counted until the last one ends.
    departed: Vec<Listening>,
}

#[derive(Clone)]
struct Listening {
    settings: config::Listener,
    service: Arc<Service>,
}

impl Parts {
    /// Nothing runs yet.
    pub(super) fn new(shared: Shared, doors: Doors) -> Self {
        let pools = Pools::new(shared.workers);
        Self { shared, pools, doors, listeners: BTreeMap::new(), departed: Vec::new() }
    }

    /// Becomes what `config` says. Connections that live go on as they began, and what stays the same keeps its state.
    ///
    /// # Errors
    /// An address can't be had; nothing has changed.
    pub(super) async fn follow(&mut self, config: &Config) -> Result<(), RunError> {
        let plan = self.doors.plan(config)?;
        self.pools.follow(&config.pools).await;
        let listeners: BTreeMap<String, Listening> =
            config.listeners.iter().map(|listener| (listener.name.clone(), self.listening(listener))).collect();
        self.doors.follow(plan, |name| listeners[name].service.clone()).await;
        for (name, before) in std::mem::replace(&mut self.listeners, listeners) {
            match self.listeners.get(&name) {
                Some(now) if Arc::ptr_eq(&now.service, &before.service) => {}
                Some(_) => before.service.retire(),
                None => {
                    before.service.retire();
                    self.departed.push(before);
                }
            }
        }
        self.pools.keep_only(&config.pools);
        Ok(())
    }

    /// A listener that is as it was keeps its service; one that has changed gets another, which goes on with its counts.
    fn listening(&self, settings: &config::Listener) -> Listening {
        let known = self.listeners.get(&settings.name);
        if let Some(same) = known.filter(|known| known.settings == *settings) {
            return same.clone();
        }
        let before = known.or_else(|| self.departed.iter().find(|gone| gone.settings.name == settings.name));
        let upstream_of = |pool: &str| self.pools.upstream(pool);
        let service = Service::new(settings, upstream_of, &self.shared, before.map(|before| &*before.service));
        Listening { settings: settings.clone(), service }
    }

    /// What there is to see.
    pub(super) fn shown(&mut self) -> Shown {
        let listeners = &self.listeners;
        self.departed.retain(|gone| {
            let is_active = ListenerTotals::of(&gone.service.stats().counters).active() > 0;
            is_active && !listeners.contains_key(&gone.settings.name)
        });
        let present = self.listeners.values().map(|present| (present, self.doors.addresses(&present.settings)));
        let departed = self.departed.iter().map(|departed| (departed, Vec::new()));
        let show = |(Listening { settings, service }, addresses): (&Listening, Vec<String>)| ShownListener {
            stats: service.stats().clone(),
            addresses,
            mode: settings.mode,
            pool: settings.pool.clone(),
        };
        Shown { listeners: present.chain(departed).map(show).collect(), pools: self.pools.all() }
    }
}
