//! Chooses among the backends of one pool: by the table that was built last, and if that gives none, by the pool's
//! current state.
//!
//! A pick never builds a table. The table gives the order of turns; whether a backend may be picked is read from its
//! current state:
//!
//! - A backend that failed, was taken out of service or has left its pool is skipped at once, however old the table is.
//! - One that has recovered gets its turns with the next table. Until then it is picked if the table gives no other, so
//!   that no client is refused or has to wait while there is a usable backend.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::backends::{Backend, Lease, Pool};

use super::pick_request::{PickError, PickRequest};
use super::policy::{Turn, first_with_room};
use super::table::Table;

/// After a table was built, the next one waits for this many times as long: a pool whose backends change without end
/// takes at most a fifth of the main thread's time, and a table is never out of date by more than six times as long as
/// it takes to build one.
const PAUSES: u32 = 4;
/// Timers are no finer: a shorter pause gives only other tasks a turn.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Chooses among the backends of one pool. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    pool: Arc<Pool>,
    /// Counts the picks of all workers together, so that consecutive ones get consecutive places of the order.
    turn: AtomicU64,
    table: ArcSwap<Table>,
}

impl Balancer {
    /// Starts with the pool's backends as they are.
    pub fn new(pool: Arc<Pool>) -> Arc<Self> {
        let table = ArcSwap::from_pointee(Table::new(&pool));
        Arc::new(Self { pool, turn: AtomicU64::new(0), table })
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Builds the table anew whenever the pool has changed, until dropped. To be run by one task, on the main thread.
    pub async fn follow_pool(&self) -> Infallible {
        loop {
            self.pool.next_generation().await;
            let began = Instant::now();
            self.rebuild();
            let pause = began.elapsed() * PAUSES;
            if pause < SHORTEST_PAUSE {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Builds the table anew if the pool has changed, so that the very next pick sees the change. Not for the path of a
    /// connection: a large pool takes milliseconds.
    pub fn rebuild(&self) {
        if !self.is_current() {
            self.table.store(Arc::new(Table::new(&self.pool)));
        }
    }

    /// Whether nothing has changed since the table was built.
    pub(super) fn is_current(&self) -> bool {
        self.table.load().generation() == self.pool.generation()
    }

    /// Chooses a backend and counts the connection on it.
    ///
    /// # Errors
    /// None can be chosen.
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Lease, PickError> {
        // An ejected backend whose time is over gets one connection as its probe, before any policy.
        if let Some(probe) = self.pool.due_probe(request.now, |backend| request.is_untried(backend)) {
            return Ok(probe);
        }
        let turn = Turn::new(&self.turn);
        let table = self.table.load();
        match table.choose_primary(request, &turn) {
            Some(lease) => Ok(lease),
            None => self.pick_from_rest(&table, request, &turn),
        }
    }

    /// No primary of the table is usable, or has room: a primary may have recovered since it was built, else a backup
    /// will do, else all are full, or none is usable.
    fn pick_from_rest(&self, table: &Table, request: &PickRequest<'_>, turn: &Turn<'_>) -> Result<Lease, PickError> {
        let backends = self.pool.backends();
        let is_usable = |backend: &Arc<Backend>| backend.is_usable() && request.is_untried(backend);
        let is_current = table.generation() == self.pool.generation();
        if !is_current
            && let Some(lease) = first_with_room(&backends, turn, &|backend| is_usable(backend) && !backend.is_backup())
        {
            return Ok(lease);
        }
        if let Some(lease) = table.choose_backup(request, turn) {
            return Ok(lease);
        }
        if backends.iter().any(is_usable) {
            return first_with_room(&backends, turn, &is_usable).ok_or(PickError::Full);
        }
        // Fail open: with none usable every backend is tried, except those that an operator took out of service.
        let may_try = |backend: &Arc<Backend>| backend.may_fail_open() && request.is_untried(backend);
        match table.fail_open(request, turn).or_else(|| first_with_room(&backends, turn, &may_try)) {
            Some(lease) => Ok(lease),
            None if backends.iter().any(may_try) => Err(PickError::Full),
            None => Err(PickError::NoneLeft),
        }
    }
}
