//! The life of one connection, every branch of it: admitted -> entered -> connected to a backend -> relayed
//! (or, in http mode, served request by request) -> accounted for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::backends::Lease;
use crate::net::{ConnectFailure, Peer, Transport};
use crate::relay::{self, Meter, Outcome, Start, Tally};
use crate::telemetry::Cause;

use super::connect::{self, ConnectContext, Connected, Refusal};
use super::frontend::{Frontend, Worker};
use super::http;
use super::preface::Preface;
use super::record::Record;
use super::workers::Permits;

/// Serves one client to its end. Cancelling it resets both peers and counts the connection as cut.
///
/// Not an `async fn`: that would keep its arguments twice for each connection, as they came and as they are used.
#[expect(clippy::manual_async_fn, reason = "it would be larger")]
pub(super) fn serve(
    worker: Rc<Worker>,
    frontend: Arc<Frontend>,
    client: Transport,
    peer: Peer,
    mut permits: Permits,
) -> impl Future<Output = ()> {
    async move {
        let _load = worker.workers.count(worker.id);
        let tally = Tally::default();
        let mut record = Record::open(&worker, &frontend, peer, &tally);
        // Boxed, as all that is soon over or seldom is: every connection would be as large as its largest part.
        let Preface { server, upstream } = match match frontend.access_rules.reads_nothing() {
            true => Preface::without_reading(&frontend),
            false => Box::pin(Preface::read(&worker, &frontend, &client, &mut record.peer, &mut permits)).await,
        } {
            Ok(entered) => entered,
            Err(refusal) => return refuse(record, &client, refusal),
        };
        record.upstream = Some(upstream);
        if let Some(http) = &frontend.http {
            let peers = (record.peer, server.as_deref());
            let cause = Box::pin(http::serve(&worker, &frontend, upstream, http, &client, peers)).await;
            return record.close(cause);
        }
        let limits = frontend.limits(upstream);
        let _share = upstream.pool().count_connection();
        let idle_timer = worker.idle_timeouts.start(limits.first());
        loop {
            let context = ConnectContext {
                upstream,
                client: &client,
                peer: record.peer,
                server: server.as_deref(),
                idle_pool: None,
            };
            // In this order: the place is given back once the connection is closed.
            let Connected { lease, stream: backend, .. } =
                match Box::pin(connect::to_backend(context, &mut record.attempts)).await {
                    Ok(connected) => connected,
                    Err(refusal) => return refuse(record, &client, refusal),
                };
            let meter = Meter {
                tally: &tally,
                listener: &frontend.counters(worker.id).bytes,
                backend: &lease.backend().counters(worker.id).bytes,
                on_first_byte: &|now| lease.record_success(now),
            };
            let may_retry = upstream.pool().may_retry_after(record.attempts.tried().len() + 1);
            let start = Start::Fresh { may_retry };
            match relay::run(&client, &backend, &worker.resources, &meter, &idle_timer, &limits, start).await {
                Outcome::Over(cause) => {
                    judge(&lease, cause, &tally);
                    return record.close(cause);
                }
                // Not a byte went either way: another backend can take its place, and the client sees nothing of it.
                Outcome::Untouched => {
                    lease.record_immediate_close(Instant::now());
                    record.attempts.failed(lease.backend(), ConnectFailure::Reset);
                }
            }
        }
    }
}

/// The client is reset: nobody can take that for an answer.
fn refuse(record: Record<'_>, client: &Transport, refusal: Refusal) {
    client.reset_on_close();
    match refusal {
        Refusal::Closed(cause) => record.close(cause),
        Refusal::Rejected(reason) => record.reject(reason),
    }
}

/// What the connection tells about its backend.
fn judge(lease: &Lease, cause: Cause, tally: &Tally) {
    let by_backend = matches!(cause, Cause::BackendClosed | Cause::BackendReset);
    match (tally.bytes_in() > 0, tally.bytes_out() > 0) {
        // It was judged well at its first byte.
        (_, true) => {}
        (true, false) if by_backend => lease.record_early_close(Instant::now()),
        (false, false) if cause == Cause::BackendReset => lease.record_immediate_close(Instant::now()),
        // It took the client's bytes and had nothing to say, as a log sink does.
        (true, false) if cause == Cause::ClientClosed => lease.record_success(Instant::now()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of one connection, which its task keeps for as long as it lives, idle or not. Measured: 640 bytes (Rust
    /// 1.95, x86-64). With tokio's 160 a task is then 896 bytes, seven times 128, to which it is aligned: 97 more would
    /// make it 1,024. A buffer or a large error kept over an await would break it.
    const MOST_BYTES: usize = 736;

    /// The size of the future that an async function of five arguments gives, without a call of it.
    fn size_of_future<A, B, C, D, E, F: Future>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_stays_small() {
        let bytes = size_of_future(serve);
        assert!(bytes <= MOST_BYTES, "a connection's future takes {bytes} bytes");
    }
}
