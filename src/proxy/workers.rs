//! The balance between workers: how loaded each is, and the inbox through which it gets connections from the others.
//!
//! SO_REUSEPORT spreads connections by a hash of their addresses: evenly for thousands, unevenly for a few long ones. A
//! worker that has clearly more than another passes new ones on, before it has spent anything on them.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::lifecycle::{ConnectionLimit, DrainWatch};

use super::admitted::Admitted;
use super::worker_load::{Load, WorkerLoad};

/// A worker keeps a connection unless it has this many more than the least loaded one, and a quarter more: to pass it
/// on costs a wake-up of the other thread.
const TOLERATED_SKEW: usize = 4;

/// All workers. The inboxes need no limit of their own: each connection in them holds permits, which are limited.
pub struct Workers {
    loads: Vec<Arc<WorkerLoad>>,
    inboxes: Vec<UnboundedSender<Admitted>>,
    /// Idle connections to backends, of all workers together: they are files, of which clients need the rest.
    idle_connections: Arc<ConnectionLimit>,
}

impl Workers {
    /// Also returns the receiving ends of the inboxes, one for each worker.
    pub fn new(
        workers: usize,
        idle_connections: Arc<ConnectionLimit>,
        drain: &DrainWatch,
    ) -> (Arc<Self>, Vec<UnboundedReceiver<Admitted>>) {
        let (inboxes, receivers) = (0..workers).map(|_| unbounded_channel()).unzip();
        let loads = (0..workers).map(|worker| WorkerLoad::new(worker, drain.clone())).collect();
        (Arc::new(Self { loads, inboxes, idle_connections }), receivers)
    }

    #[allow(clippy::len_without_is_empty, reason = "there is always a worker")]
    pub fn len(&self) -> usize {
        self.inboxes.len()
    }

    pub(super) fn idle_connections(&self) -> &Arc<ConnectionLimit> {
        &self.idle_connections
    }

    /// Counts a connection that `worker` serves.
    pub(super) fn count(&self, worker: usize) -> Load {
        Load::count(&self.loads[worker])
    }

    /// Passes the connection on to a clearly less loaded worker; returns it if there is none.
    pub(super) fn rebalance(&self, from: usize, mut admitted: Admitted) -> Option<Admitted> {
        let loads = self.loads.iter().map(|load| load.connections());
        let (idlest, least) = loads.enumerate().min_by_key(|(_, load)| *load)?;
        if self.loads[from].connections() <= least + least / 4 + TOLERATED_SKEW {
            return Some(admitted);
        }
        // Counted there at once: the next one of a burst is to find another worker.
        admitted.account.load = self.count(idlest);
        self.inboxes[idlest].send(admitted).err().map(|error| {
            // A worker that has ended doesn't take it: then it stays here.
            let mut admitted = error.0;
            admitted.account.load = self.count(from);
            admitted
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use crate::backends::Pool;
    use crate::config::{Overrides, PoolConfig, Source};
    use crate::lifecycle::{ConnectionIds, ConnectionLimit, Cutter, Drain, Phase};
    use crate::net::{Accepted, Peer};
    use crate::telemetry::{Cause, ListenerTotals};

    use super::super::account::Account;
    use super::super::admitted::Permits;
    use super::super::frontend::{Frontend, ListenerDeps};
    use super::super::upstream::Upstream;
    use super::*;

    const WORKERS: usize = 2;

    fn frontend() -> Arc<Frontend> {
        let (listen, backend) = (vec!["127.0.0.1:1".to_owned()], vec!["127.0.0.1:2".to_owned()]);
        let flags = Overrides { listen, backend, ..Overrides::default() };
        let config = Source { flags, ..Source::default() }.load().expect("it is valid").config;
        let deps = ListenerDeps { global_limit: ConnectionLimit::new(1000), access_log: None, workers: WORKERS };
        let pool = || Pool::new(PoolConfig::example(), WORKERS, Cutter::default(), Instant::now());
        Frontend::new(&config.listeners[0], |_| Upstream::new(pool()), &deps, None)
    }

    /// A connection that worker 0 has admitted, and its client.
    fn admitted(workers: &Workers, frontend: &Arc<Frontend>, ids: &ConnectionIds) -> (Admitted, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let accepted = Accepted::of(listener.accept().expect("one has come").0.into());
        frontend.counters(0).accepted();
        let (process, listener) = frontend.try_acquire().expect("there is room");
        let permits = Permits { _process: process, _listener: listener, client: OnceCell::new() };
        let load = workers.count(0);
        let account = Account::new(ids.next(), Instant::now(), Peer::Unix, frontend.clone(), load);
        (Admitted::new(accepted, account, permits), client)
    }

    #[test]
    fn a_burst_is_shared_before_any_of_its_tasks_has_run() {
        let (_drain, watch) = Drain::new();
        let (workers, mut inboxes) = Workers::new(WORKERS, ConnectionLimit::new(0), &watch);
        let (frontend, ids) = (frontend(), ConnectionIds::new(0, WORKERS));
        let one = || workers.rebalance(0, admitted(&workers, &frontend, &ids).0);
        let kept: Vec<_> = (0..64).filter_map(|_| one()).collect();
        let passed: Vec<_> = std::iter::from_fn(|| inboxes[1].try_recv().ok()).collect();
        assert_eq!(kept.len() + passed.len(), 64);
        assert!(kept.len() <= passed.len() + passed.len() / 4 + TOLERATED_SKEW + 1, "{} stayed", kept.len());
    }

    #[test]
    fn what_waits_for_its_task_at_the_end_is_reset_and_counted() {
        let (drain, watch) = Drain::new();
        let (workers, inboxes) = Workers::new(WORKERS, ConnectionLimit::new(0), &watch);
        let (frontend, ids) = (frontend(), ConnectionIds::new(0, WORKERS));
        let (kept, clients): (Vec<_>, Vec<_>) = (0..32)
            .map(|_| {
                let (admitted, client) = admitted(&workers, &frontend, &ids);
                (workers.rebalance(0, admitted), client)
            })
            .unzip();
        drain.advance(Phase::Over);
        drop((kept, inboxes));
        for mut client in clients {
            let ended = client.read(&mut [0]).expect_err("no end that looks like an answer");
            assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
        }
        // The inboxes are closed.
        assert!((0..32).all(|_| workers.rebalance(0, admitted(&workers, &frontend, &ids).0).is_some()));
        let totals = ListenerTotals::sum(&frontend.stats().counters);
        assert_eq!((totals.accepted, totals.closed[Cause::DrainForced as usize], totals.active()), (64, 64, 0));
        assert!(workers.loads.iter().all(|load| load.connections() == 0));
    }
}
