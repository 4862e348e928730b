//! Who gets the next connection.
//!
//! Tables of the usable backends are made anew when their state changes; a pick reads them without a lock.

mod maglev;
mod order;
#[cfg(test)]
mod properties;
mod tier;
#[cfg(test)]
mod world;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::backends::{Backend, Lease, Pool};

use tier::Tier;

/// What a choice may depend on.
#[derive(Debug)]
pub struct PickRequest<'a> {
    /// When it is asked.
    pub now: Instant,
    /// The client's address; `None`: a unix socket.
    pub client: Option<IpAddr>,
    /// Backends that this client's connection has tried: none is tried twice.
    pub tried: &'a [Arc<Backend>],
}

/// Why there is no choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// No backend is known that was not tried.
    NoneLeft,
    /// There are some, but each has as many connections as it may.
    Full,
}

/// Chooses among the backends of one pool. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    pool: Arc<Pool>,
    /// The global turn: consecutive picks of all workers get consecutive places of the order.
    turn: AtomicU64,
    table: ArcSwap<Table>,
}

/// The backends by rank, as they were at one generation of the pool.
#[derive(Debug)]
struct Table {
    generation: u64,
    primaries: Tier,
    backups: Tier,
    /// When nothing is usable, everything is tried in turn (fail open), but for what an operator keeps out.
    all: Tier,
}

impl Balancer {
    /// Starts with the pool's backends as they are.
    pub fn new(pool: Arc<Pool>) -> Arc<Self> {
        let table = ArcSwap::from_pointee(Table::new(&pool));
        Arc::new(Self { pool, turn: AtomicU64::new(0), table })
    }

    /// The pool it chooses from.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Chooses a backend and counts the connection on it.
    ///
    /// # Errors
    /// There is none to choose.
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Lease, PickError> {
        if let Some(probe) = self.pool.due_probe(request.now).filter(|probe| !is_tried(request, probe.backend())) {
            return Ok(probe);
        }
        let table = self.table.load();
        if table.generation == self.pool.generation() {
            return self.pick_from(&table, request);
        }
        drop(table);
        let table = Arc::new(Table::new(&self.pool));
        self.table.store(table.clone());
        self.pick_from(&table, request)
    }

    fn pick_from(&self, table: &Table, request: &PickRequest<'_>) -> Result<Lease, PickError> {
        let is_untried = |backend: &Arc<Backend>| !is_tried(request, backend);
        let is_usable = |backend: &Arc<Backend>| backend.is_up() && is_untried(backend);
        // A retry goes where nothing failed lately, if it can: it has few of them.
        let is_promising = |backend: &Arc<Backend>| is_usable(backend) && !backend.is_suspect(request.now);
        let choose = |tier: &Tier, may| tier.choose(&self.turn, request.client, may);
        if !request.tried.is_empty()
            && let Some(lease) = choose(&table.primaries, &is_promising)
        {
            return Ok(lease);
        }
        if let Some(lease) = choose(&table.primaries, &is_usable).or_else(|| choose(&table.backups, &is_usable)) {
            return Ok(lease);
        }
        let (primaries, backups) = (&table.primaries, &table.backups);
        if primaries.any(&is_usable) || backups.any(&is_usable) {
            return Err(PickError::Full);
        }
        match choose(&table.all, &is_untried) {
            Some(lease) => Ok(lease),
            None if table.all.any(&is_untried) => Err(PickError::Full),
            None => Err(PickError::NoneLeft),
        }
    }
}

impl Table {
    fn new(pool: &Pool) -> Self {
        // Read before the states: a change after this makes the table out of date, never wrongly fresh.
        let generation = pool.generation();
        let backends = pool.backends();
        let tier = |belongs: &dyn Fn(&Backend) -> bool| {
            let members = backends.iter().filter(|backend| backend.weight() > 0 && belongs(backend));
            Tier::new(pool.settings().policy, members.cloned().collect())
        };
        Self {
            generation,
            primaries: tier(&|backend| backend.is_up() && !backend.is_backup()),
            backups: tier(&|backend| backend.is_up() && backend.is_backup()),
            all: tier(&|backend| !backend.state().is_by_operator()),
        }
    }
}

fn is_tried(request: &PickRequest<'_>, backend: &Arc<Backend>) -> bool {
    request.tried.iter().any(|tried| Arc::ptr_eq(tried, backend))
}
