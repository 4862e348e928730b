//! What the states of a pool's backends mean for the pool as a whole: whether its clients are served, and whether those
//! on backups are to move back.
//!
//! Follows the states; nobody waits for it. A pick sees them by itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::OnReturn;
use crate::lifecycle::Cut;

use super::pool::Pool;
use super::service::Service;
use super::status::BackendState;

/// Logs when a pool's clients begin to be refused and when they are served again, and closes backups as configured,
/// until dropped. To be run by one task.
pub async fn follow_roles(pool: Arc<Pool>) -> Infallible {
    let mut service = Service::Served;
    let mut seen = pool.generation();
    loop {
        let now = pool.service();
        // That a pool has no backend yet is reported for the name that gives none.
        if now != service && !pool.backends().is_empty() {
            report(&pool, service, now);
            service = now;
        }
        if pool.settings().on_return == OnReturn::CloseBackups {
            close_backups(&pool);
        }
        seen = pool.generation_after(seen).await;
    }
}

/// An outage is one, whatever its clients get meanwhile.
fn report(pool: &Pool, before: Service, now: Service) {
    if before == Service::Served || now == Service::Served {
        pool.set_outage_since((now != Service::Served).then(SystemTime::now));
    }
    let states = states(pool);
    let pool = pool.name();
    let event = if before == Service::Served { "pool_down" } else { "pool_still_down" };
    match now {
        Service::Served => tracing::info!(event = "pool_up", pool, states, "clients are served again"),
        Service::EjectedTried => {
            tracing::warn!(event, pool, states, "no backend is usable: those that have failed are tried");
        }
        Service::AllTried => tracing::warn!(event, pool, states, "no backend passes its health check: all are tried"),
        Service::Refused => tracing::warn!(event, pool, states, "no backend may be used: clients are refused"),
    }
}

/// How many backends are in which state.
fn states(pool: &Pool) -> String {
    let backends = pool.backends();
    let count = |state: BackendState| backends.iter().filter(|backend| backend.state() == state).count();
    let counts = BackendState::ALL.iter().map(|state| (count(*state), state.as_str())).filter(|(count, _)| *count > 0);
    counts.map(|(count, state)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

/// Cuts the connections of every rank behind the one that is in use. At each change: a client may have picked its
/// backup in the moment before the last one.
fn close_backups(pool: &Pool) {
    let backends = pool.backends();
    let usable = backends.iter().filter(|backend| backend.is_usable());
    let Some(best) = usable.map(|backend| backend.rank()).min() else { return };
    pool.cut(backends.iter().filter(|backend| backend.rank() > best), Cut::BackupClosed);
}
