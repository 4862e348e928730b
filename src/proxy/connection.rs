//! The life of one connection, every branch of it: admitted -> preface read -> connected to a backend -> relayed
//! (or, in http mode, served request by request) -> counted and logged.

use std::sync::Arc;
use std::time::Instant;

use crate::backends::{Evidence, Lease};
use crate::net::{ConnectFailure, Transport};
use crate::relay::{self, Meter, Outcome, Start};
use crate::telemetry::{Cause, Rejection};

use super::connect::{self, ConnectContext, Connected};
use super::http;
use super::listed::Listed;
use super::preface;
use super::record::Record;
use super::refusal::Refusal;
use super::upstream::Upstream;

/// Serves one client to its end. Cancelling it resets both peers and counts the connection as cut.
///
/// Not an `async fn`: that would keep its arguments twice for each connection, as they came and as they are used.
#[expect(clippy::manual_async_fn, reason = "it would be larger")]
pub(super) fn serve(listed: Listed) -> impl Future<Output = ()> {
    async move {
        // Few locals: each takes its place in the future, and what is borrowed is found by way of `listed` again.
        let client = match listed.connection().admitted.begin().into_transport() {
            Ok(client) => client,
            Err(error) => {
                let listener = listed.frontend().name();
                tracing::warn!(listener, %error, "an accepted socket could not be registered");
                return Record::open(listed.account()).close(Cause::Internal);
            }
        };
        let mut record = Record::open(listed.account());
        record.client = Some(&client);
        // Scrutinees and boxes, not locals: what is moved out of a local still has its place in the future to the end.
        let upstream = match read_preface(&listed, &client).await {
            Ok(upstream) => listed.account().chosen(upstream),
            Err(refusal) => return refuse(record, &client, refusal),
        };
        let limits = listed.frontend().limits(upstream);
        listed.idle_timer().touch();
        listed.idle_timer().set_limit(limits.first());
        if let Some(http) = &listed.frontend().http {
            let context = connect_context(&listed, upstream, &client);
            let cause = Box::pin(http::serve(&listed.worker, listed.frontend(), http, context)).await;
            return record.close(cause);
        }
        let _share = upstream.pool().count_connection();
        loop {
            let context = connect_context(&listed, upstream, &client);
            // The lease comes first: it is dropped last, so that the backend's place is given back once its socket is
            // closed.
            let Connected { lease, transport: backend, .. } =
                match Box::pin(connect::to_backend(context, &mut record.attempts)).await {
                    Ok(connected) => connected,
                    Err(refusal) => return refuse(record, &client, refusal),
                };
            record.backend_asked();
            let worker = &listed.worker;
            let meter = Meter {
                tally: &listed.account().tally,
                listener: &listed.frontend().counters(worker.id).bytes,
                backend: &lease.backend().counters(worker.id).bytes,
                on_first_byte: &|first| record.note_first_byte(first, &lease),
            };
            let may_retry = upstream.pool().may_retry_after(record.attempts.tried().len() + 1);
            let start = Start::Fresh { may_retry };
            let resources = &worker.resources;
            match relay::run(&client, &backend, resources, &meter, listed.idle_timer(), &limits, start).await {
                Outcome::Over(cause) => {
                    judge(&record, upstream, &lease, cause);
                    return record.close(cause);
                }
                // Not a byte went either way: another backend can take its place, and the client sees nothing of it.
                Outcome::Untouched => {
                    blame(&record, upstream, &lease, Evidence::ImmediateClose);
                    record.attempts.failed(lease.backend(), ConnectFailure::Reset);
                }
            }
        }
    }
}

async fn read_preface<'a>(listed: &'a Listed, client: &Transport) -> Result<&'a Arc<Upstream>, Refusal> {
    if listed.frontend().needs_preface(listed.account().peer()) {
        // Boxed: few listeners need it, and every connection would be as large as this.
        Box::pin(preface::read(&listed.worker, listed.connection(), client)).await
    } else {
        preface::default_upstream(listed.frontend())
    }
}

fn connect_context<'a>(listed: &'a Listed, upstream: &'a Upstream, client: &'a Transport) -> ConnectContext<'a> {
    let (account, idle_timer) = (listed.account(), listed.idle_timer());
    ConnectContext { account, upstream, client, idle_timer, idle_pool: None, has_asked: false }
}

/// The client is reset: it can't take that for an answer. One whose handshake failed was told.
fn refuse(record: Record<'_>, client: &Transport, refusal: Refusal) {
    if !matches!(refusal, Refusal::Rejected(Rejection::TlsHandshake)) {
        client.reset_on_close();
    }
    match refusal {
        Refusal::Closed(cause) => record.close(cause),
        Refusal::Rejected(reason) => record.reject(reason),
    }
}

/// What the end of the connection says about its backend. Where it sent a byte, that was counted as a success.
fn judge(record: &Record<'_>, upstream: &Upstream, lease: &Lease, cause: Cause) {
    let tally = &record.account.tally;
    if tally.bytes_out() > 0 {
        return;
    }
    let has_asked = tally.bytes_in() > 0;
    if has_asked && matches!(cause, Cause::ClientReset | Cause::HalfClosedTimeout) {
        record.span().in_scope(|| lease.client_left_unanswered(Instant::now()));
    }
    match cause {
        // Where it was silent for longer, that was the server's own limit for silent clients, and no evidence.
        _ if tally.backend_ended_at_once() => blame(record, upstream, lease, Evidence::ImmediateClose),
        Cause::BackendClosed | Cause::BackendReset if has_asked => blame(record, upstream, lease, Evidence::EarlyClose),
        Cause::FirstByteTimeout => blame(record, upstream, lease, Evidence::NoAnswer),
        Cause::IdleTimeout | Cause::HalfClosedTimeout if has_asked => blame(record, upstream, lease, Evidence::Silence),
        // It took the client's bytes and had nothing to say, as a log sink does.
        Cause::ClientClosed if has_asked => lease.record_success(Instant::now()),
        _ => {}
    }
}

fn blame(record: &Record<'_>, upstream: &Upstream, lease: &Lease, evidence: Evidence) {
    let ended = || upstream.pool().record_evidence(lease, evidence, record.account.peer().ip(), Instant::now());
    record.span().in_scope(ended);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of one connection, which its task keeps for as long as it is open, idle or not. Measured: 536 bytes
    /// (Rust 1.95, x86-64). With tokio's 104 a task is then 640 bytes, five times 128, to which it is aligned; of more
    /// it would be 768. A buffer or a large error kept over an await would break it.
    const MOST_BYTES: usize = 536;

    /// The size of the future that a function gives, without a call of it.
    fn size_of_future<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_stays_small() {
        let bytes = size_of_future(serve);
        assert!(bytes <= MOST_BYTES, "a connection's future takes {bytes} bytes");
    }
}
