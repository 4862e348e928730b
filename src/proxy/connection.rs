//! The life of one connection, every branch of it: admitted -> connected to a backend -> relayed -> accounted for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::backends::Lease;
use crate::lifecycle::Permit;
use crate::net::{Peer, Stream};
use crate::relay::{self, Meter, Tally};
use crate::telemetry::Cause;

use super::connect::{self, Connected};
use super::record::Record;
use super::service::{Service, Worker};

/// Serves one client to its end. Cancelling it resets both peers and counts the connection as cut.
pub(super) async fn serve(
    worker: Rc<Worker>,
    service: Arc<Service>,
    client: Stream,
    peer: Peer,
    _permits: (Permit, Option<Permit>),
) {
    let tally = Tally::default();
    let mut record = Record::open(&worker, &service, peer, &tally);
    let Connected { stream: backend, lease } = match connect::to_backend(&service, &mut record).await {
        Ok(connected) => connected,
        Err(cause) => {
            client.reset_on_close();
            return record.close(cause);
        }
    };
    let meter = Meter {
        tally: &tally,
        listener: &service.counters(worker.id).bytes,
        backend: lease.backend().bytes(worker.id),
        on_first_byte: &|now| lease.went_well(now),
    };
    let seat = worker.roster.enter(service.limits.first());
    let cause = relay::run(&client, &backend, &worker.tools, &meter, &seat, service.limits).await;
    judge(&lease, cause, &tally);
    record.close(cause);
}

/// What the connection tells about its backend.
fn judge(lease: &Lease, cause: Cause, tally: &Tally) {
    let by_backend = matches!(cause, Cause::BackendClosed | Cause::BackendReset);
    match (tally.bytes_in() > 0, tally.bytes_out() > 0) {
        // It was judged well at its first byte.
        (_, true) => {}
        (true, false) if by_backend => lease.closed_early(Instant::now()),
        (false, false) if cause == Cause::BackendReset => lease.reset_at_once(Instant::now()),
        // It took the client's bytes and had nothing to say, as a log sink does.
        (true, false) if cause == Cause::ClientClosed => lease.went_well(Instant::now()),
        _ => {}
    }
}
