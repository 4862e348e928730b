//! Chooses among the backends of one pool: by the table that was built last, and where that has no answer, by the
//! pool's own state.
//!
//! A pick never builds a table. The table is the order of turns; what may be picked is asked of the backends
//! themselves:
//!
//! - One that failed, was taken out or has left its pool is passed over at once, however old the table is.
//! - One that came back gets its turns with the next table. Until then it is found where the table has nothing to
//!   offer, so that no client is turned away, or kept waiting, beside a usable backend.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::backends::{Backend, Lease, Pool};

use super::request::{PickError, PickRequest};
use super::table::Table;
use super::tier::{Turn, one_by_one};

/// After a table was built, the next one waits for so many times as long: a pool whose backends come and go without
/// end takes at most a fifth of the main thread, and a table is at most six times its own building time old.
const PAUSES: u32 = 4;
/// Shorter pauses are none: timers are no finer.
const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// Chooses among the backends of one pool. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    pool: Arc<Pool>,
    /// The global turn: consecutive picks of all workers get consecutive places of the order.
    turn: AtomicU64,
    table: ArcSwap<Table>,
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

    /// Builds the table anew whenever the pool has changed, until dropped. For one task, off the workers' threads.
    pub async fn follow_pool(&self) -> Infallible {
        loop {
            self.pool.next_generation().await;
            let began = Instant::now();
            self.rebuild();
            match began.elapsed() * PAUSES {
                pause if pause < LEAST_PAUSE => tokio::task::yield_now().await,
                pause => tokio::time::sleep(pause).await,
            }
        }
    }

    /// Builds the table anew if the pool has changed: for one who wants a change to be seen by the very next pick. Not
    /// on the path of a connection: a large pool takes milliseconds.
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
    /// There is none to choose.
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Lease, PickError> {
        if let Some(probe) = self.pool.due_probe(request.now).filter(|probe| request.is_untried(probe.backend())) {
            return Ok(probe);
        }
        let turn = Turn::new(&self.turn);
        let table = self.table.load();
        match table.choose_primary(request, &turn) {
            Some(lease) => Ok(lease),
            None => self.pick_from_rest(&table, request, &turn),
        }
    }

    /// No primary of the table is usable, or has room: a primary may have come back since it was built, else a backup
    /// will do, else all are full, or none is usable.
    fn pick_from_rest(&self, table: &Table, request: &PickRequest<'_>, turn: &Turn<'_>) -> Result<Lease, PickError> {
        let backends = self.pool.backends();
        let is_usable = |backend: &Arc<Backend>| backend.is_usable() && request.is_untried(backend);
        let is_current = table.generation() == self.pool.generation();
        if !is_current
            && let Some(lease) = one_by_one(&backends, turn, &|backend| is_usable(backend) && !backend.is_backup())
        {
            return Ok(lease);
        }
        if let Some(lease) = table.choose_backup(request, turn) {
            return Ok(lease);
        }
        if backends.iter().any(is_usable) {
            return one_by_one(&backends, turn, &is_usable).ok_or(PickError::Full);
        }
        // None is usable: everything is tried (fail open), but for what an operator keeps out.
        let may = |backend: &Arc<Backend>| backend.may_fail_open() && request.is_untried(backend);
        match table.fail_open(request, turn).or_else(|| one_by_one(&backends, turn, &may)) {
            Some(lease) => Ok(lease),
            None if backends.iter().any(may) => Err(PickError::Full),
            None => Err(PickError::NoneLeft),
        }
    }
}
