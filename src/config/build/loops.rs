//! No listener may be its own backend, by itself or by way of others: each connection would make the next, until files
//! run out. What only the machine knows (its addresses, what names mean) is looked at when the configuration runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::listener::ListenerConfig;
use crate::config::pool::PoolConfig;

use super::block::Block;

pub fn check_loops(listeners: &[ListenerConfig], pools: &[PoolConfig], root: &mut Block<'_>) {
    let ways = Ways::new(listeners, pools);
    for listener in listeners {
        let mut steps = ways.steps(listener);
        let back = steps.find(|(_, _, to)| to.name == listener.name || ways.reached(to).contains(&*listener.name));
        if let Some((pool, index, to)) = back {
            let by_way_of =
                if to.name == listener.name { String::new() } else { format!(" by way of listener `{}`", to.name) };
            let message = format!(
                "leads back to listener `{}`{by_way_of}, whose pool this is: each connection would make another one; \
                 remove this backend, or change its port",
                listener.name
            );
            root.problem(&format!("pools.{pool}.backends[{index}]"), message);
        }
    }
}

/// By pool: the backends that are listeners, each by its place in the pool.
struct Ways<'a>(BTreeMap<&'a str, Vec<(usize, &'a ListenerConfig)>>);

impl<'a> Ways<'a> {
    fn new(listeners: &'a [ListenerConfig], pools: &'a [PoolConfig]) -> Self {
        let ways = pools.iter().map(|pool| {
            let backends = pool.backends.iter().enumerate();
            let ways = backends.flat_map(|(index, backend)| {
                let takes = |to: &&ListenerConfig| to.bind.iter().any(|bind| bind.takes(&backend.address));
                listeners.iter().filter(takes).map(move |to| (index, to))
            });
            (pool.name.as_str(), ways.collect())
        });
        Self(ways.collect())
    }

    /// The listeners that a connection of this one may be passed on to: pool, backend's place in it, listener.
    fn steps<'b>(&'b self, from: &'b ListenerConfig) -> impl Iterator<Item = (&'b str, usize, &'a ListenerConfig)> {
        let routes = from.mode.routes().iter().map(|route| &route.pool);
        from.pool.iter().chain(routes).flat_map(|pool| {
            let ways = self.0.get(pool.as_str()).into_iter().flatten();
            ways.map(move |(index, to)| (pool.as_str(), *index, *to))
        })
    }

    /// The names of all listeners that connections of this one may reach.
    fn reached(&self, from: &'a ListenerConfig) -> BTreeSet<&'a str> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(listener) = next.pop() {
            next.extend(self.steps(listener).map(|(_, _, to)| to).filter(|to| reached.insert(to.name.as_str())));
        }
        reached
    }
}
