//! Who gets the next connection.
//!
//! A table of the usable backends is made when their state changes; a pick reads it without a lock.

mod round_robin;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::backends::{Backend, Lease, Pool};

use round_robin::Rotation;

/// What a choice may depend on.
#[derive(Debug)]
pub struct Request<'a> {
    /// When it is asked.
    pub now: Instant,
    /// The client's address; `None`: a unix socket.
    pub client: Option<IpAddr>,
    /// Backends that this client's connection has tried: none is tried twice.
    pub tried: &'a [Arc<Backend>],
}

/// Chooses among the backends of one pool. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    pool: Arc<Pool>,
    /// The global turn: consecutive picks of all workers get consecutive places of the rotation.
    turn: AtomicU64,
    table: ArcSwap<Table>,
}

/// The usable backends, as they were at one generation of the pool.
#[derive(Debug)]
struct Table {
    generation: u64,
    primaries: Rotation,
    backups: Rotation,
    /// When nothing is usable, everything is tried in turn (fail open).
    all: Rotation,
}

impl Balancer {
    /// Starts with the pool's backends as they are.
    pub fn new(pool: Arc<Pool>) -> Arc<Self> {
        let table = ArcSwap::from_pointee(Table::of(&pool));
        Arc::new(Self { pool, turn: AtomicU64::new(0), table })
    }

    /// The pool it chooses from.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Chooses a backend and counts the connection on it; `None`: there is none left to try.
    pub fn pick(&self, request: &Request<'_>) -> Option<Lease> {
        if let Some(probe) = self.pool.due_probe(request.now).filter(|probe| !is_tried(request, probe.backend())) {
            return Some(probe);
        }
        let table = self.table.load();
        if table.generation == self.pool.generation() {
            return self.pick_from(&table, request);
        }
        drop(table);
        let table = Arc::new(Table::of(&self.pool));
        self.table.store(table.clone());
        self.pick_from(&table, request)
    }

    fn pick_from(&self, table: &Table, request: &Request<'_>) -> Option<Lease> {
        let usable = |backend: &Arc<Backend>| backend.is_usable() && !is_tried(request, backend);
        let backend = table
            .primaries
            .next(&self.turn, usable)
            .or_else(|| table.backups.next(&self.turn, usable))
            .or_else(|| table.all.next(&self.turn, |backend| !is_tried(request, backend)))?;
        Some(backend.lease())
    }
}

impl Table {
    fn of(pool: &Pool) -> Self {
        // Read before the states: a change after this makes the table out of date, never wrongly fresh.
        let generation = pool.generation();
        let with = |usable: bool, backup: Option<bool>| {
            let picked = pool.backends().iter().filter(|backend| {
                backend.weight() > 0
                    && (!usable || backend.is_usable())
                    && backup.is_none_or(|backup| backend.is_backup() == backup)
            });
            Rotation::new(picked.cloned().collect())
        };
        Self { generation, primaries: with(true, Some(false)), backups: with(true, Some(true)), all: with(false, None) }
    }
}

fn is_tried(request: &Request<'_>, backend: &Arc<Backend>) -> bool {
    request.tried.iter().any(|tried| Arc::ptr_eq(tried, backend))
}

/// Takes the next turn.
fn take_turn(turn: &AtomicU64) -> u64 {
    turn.fetch_add(1, Ordering::Relaxed)
}
