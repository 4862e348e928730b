//! Finding a backend that answers one request, and passing on its answer: which backends are tried, what their answers
//! say about them, and whose connections are kept.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;
use std::time::Instant;

use crate::backends::{Evidence, Lease};
use crate::lifecycle::IdleTimer;
use crate::net::{ConnectFailure, Transport};
use crate::relay::{self, Early, Limits, Meter, Outcome, PumpContext, Start};
use crate::telemetry::{Cause, Rejection};

use super::super::connect::{self, ConnectContext, Connected};
use super::super::frontend::Frontend;
use super::super::http_settings::HttpSettings;
use super::super::idle_pool::IdlePool;
use super::super::refusal::Refusal;
use super::super::worker::Worker;
use super::exchange::{Exchange, Parties};
use super::exchange_end::ExchangeEnd;
use super::failure::Failure;
use super::request::Request;
use super::request_record::RequestRecord;

/// What forwarding a client's requests takes.
pub(super) struct Forwarder<'a> {
    pub(super) worker: &'a Worker,
    pub(super) frontend: &'a Frontend,
    pub(super) http: &'a HttpSettings,
    pub(super) context: ConnectContext<'a>,
    pub(super) limits: Limits,
    pub(super) idle_timer: &'a IdleTimer,
}

/// How a request ended, whatever backends were tried for it.
pub(super) enum RequestOutcome {
    /// The client has the whole response.
    Answered {
        /// The client's connection can serve another request.
        client_keeps: bool,
        /// What the client sent beyond the request.
        overrun: Vec<u8>,
    },
    /// The client is to get an answer of our own.
    Failed(Failure),
    /// The client has a part of the response, or is gone, or its tunnel has ended.
    Cut(Cause),
}

/// What the end of an exchange with one backend leads to.
enum Verdict {
    /// No other attempt could better it.
    Over(RequestOutcome),
    /// Another backend may take the request.
    Elsewhere,
    /// A new connection to the same backend may.
    Again(Lease),
}

impl Forwarder<'_> {
    /// Tries backends until one has given the request an end that no other could better.
    pub(super) async fn forward(&self, request: &Request<'_>, record: &mut RequestRecord<'_>) -> RequestOutcome {
        let context = ConnectContext { idle_pool: self.idle_pool(), has_asked: true, ..self.context };
        let _share = context.upstream.pool().count_connection();
        let mut may_replay = request.is_replayable();
        let mut connected = connect::to_backend(context, &mut record.attempts).await;
        loop {
            let connection = match connected {
                Ok(connected) => connected,
                Err(refusal) => return no_backend(refusal, record.attempts.failures()),
            };
            let end = self.exchange_with(&connection, request, record).await;
            connected = match self.conclude(end, connection, request, &mut may_replay, record).await {
                Verdict::Over(outcome) => return outcome,
                Verdict::Elsewhere => connect::to_backend(context, &mut record.attempts).await,
                Verdict::Again(lease) => connect::reconnect(context, lease, &mut record.attempts).await,
            };
        }
    }

    /// What the end of an exchange means for the backend and for the client.
    async fn conclude(
        &self,
        (end, overrun): (ExchangeEnd, Vec<u8>),
        Connected { lease, transport, tls, is_reused }: Connected,
        request: &Request<'_>,
        may_replay: &mut bool,
        record: &mut RequestRecord<'_>,
    ) -> Verdict {
        let outcome = match end {
            // The backend may close an idle connection at any time: that is no failure, and another one helps.
            ExchangeEnd::NotSent if is_reused => return Verdict::Again(lease),
            ExchangeEnd::NotSent => {
                self.blame(record, &lease, Some(Evidence::ImmediateClose));
                record.attempts.failed(lease.backend(), ConnectFailure::Reset);
                return Verdict::Elsewhere;
            }
            ExchangeEnd::Unanswered(_) if is_reused && mem::take(may_replay) => return Verdict::Again(lease),
            ExchangeEnd::Unanswered(cause) => {
                let evidence = (!is_reused).then_some(Evidence::EarlyClose);
                let failure = Failure::new(502, "the backend closed without an answer", cause);
                self.fail(Failure { evidence, ..failure }, record, &lease)
            }
            ExchangeEnd::Answered { status, backend_keeps, client_keeps } => {
                self.judge_answer(record, &lease, status);
                let idle_pool = self.idle_pool().filter(|_| backend_keeps && !self.worker.is_closing());
                if let Some(idle_pool) = idle_pool {
                    idle_pool.put(lease.backend(), (transport, tls), self.http.backend_keep_alive, Instant::now());
                }
                RequestOutcome::Answered { client_keeps, overrun }
            }
            ExchangeEnd::Upgraded(to_client) => {
                lease.record_success(Instant::now());
                // What the client sent ahead was held back: before the 101 the backend had no claim to it.
                let early = Early { to_backend: [request.rest(), &overrun].concat(), to_client };
                RequestOutcome::Cut(self.tunnel(&transport, &lease, early).await)
            }
            ExchangeEnd::Failed(failure) => {
                // The client had ended its side, and its time was over before the backend's.
                if failure.status == 504 && failure.evidence.is_none() {
                    left_unanswered(record, &lease);
                }
                self.fail(failure, record, &lease)
            }
            ExchangeEnd::Cut(cause, evidence) => {
                if cause == Cause::ClientReset && !record.is_answered() {
                    left_unanswered(record, &lease);
                }
                self.blame(record, &lease, evidence);
                RequestOutcome::Cut(cause)
            }
        };
        Verdict::Over(outcome)
    }

    /// One exchange on one connection; gives also what the client sent beyond its request meanwhile.
    async fn exchange_with(
        &self,
        Connected { transport: backend, lease, .. }: &Connected,
        request: &Request<'_>,
        record: &RequestRecord<'_>,
    ) -> (ExchangeEnd, Vec<u8>) {
        let Forwarder { worker, frontend, limits, http, context, idle_timer } = *self;
        let client = context.client;
        let meter = self.meter(lease);
        let pump_context = &PumpContext::new(&worker.resources, &meter, idle_timer);
        let mut unfinished = Unfinished { client, backend, is_cut: true };
        let parties =
            Parties { worker, frontend, limits, http, client, backend, lease, record, pump_context, idle_timer };
        let mut exchange = Exchange::new(parties, request);
        let end = poll_fn(|cx| match idle_timer.cut() {
            Some(cut) => Poll::Ready(cut_from_outside(&exchange, cut.into())),
            None => exchange.poll(cx),
        });
        let end = end.await;
        unfinished.is_cut = matches!(end, ExchangeEnd::Cut(..));
        (end, exchange.into_overrun())
    }

    /// After an upgrade: relays whatever protocol it is now to its end.
    async fn tunnel(&self, backend: &Transport, lease: &Lease, early: Early) -> Cause {
        let (meter, resources) = (self.meter(lease), &self.worker.resources);
        let start = Start::After(early);
        match relay::run(self.context.client, backend, resources, &meter, self.idle_timer, &self.limits, start).await {
            Outcome::Over(cause) => cause,
            Outcome::Untouched => Cause::BackendClosed,
        }
    }

    /// A whole answer is a success, but for the statuses by which a server says that it isn't well, where they count:
    /// what comes first settles it.
    fn judge_answer(&self, record: &RequestRecord<'_>, lease: &Lease, status: u16) {
        if (502..=504).contains(&status) {
            self.blame(record, lease, Some(Evidence::Status5xx));
        }
        lease.record_success(Instant::now());
    }

    fn fail(&self, failure: Failure, record: &RequestRecord<'_>, lease: &Lease) -> RequestOutcome {
        self.blame(record, lease, failure.evidence);
        RequestOutcome::Failed(failure)
    }

    fn blame(&self, record: &RequestRecord<'_>, lease: &Lease, evidence: Option<Evidence>) {
        let Some(evidence) = evidence else { return };
        let (pool, client) = (self.context.upstream.pool(), self.context.peer().ip());
        record.span().in_scope(|| pool.record_evidence(lease, evidence, client, Instant::now()));
    }

    /// Where connections wait for further requests, of any client.
    fn idle_pool(&self) -> Option<&IdlePool> {
        self.context.upstream.pool().has_shared_connections().then_some(&self.worker.idle_pool)
    }

    fn meter<'a>(&'a self, lease: &'a Lease) -> Meter<'a> {
        Meter {
            tally: &self.context.account.tally,
            listener: &self.frontend.counters(self.worker.id).bytes,
            backend: &lease.backend().counters(self.worker.id).bytes,
            on_first_byte: &|_| {},
        }
    }
}

fn left_unanswered(record: &RequestRecord<'_>, lease: &Lease) {
    record.span().in_scope(|| lease.client_left_unanswered(Instant::now()));
}

/// Neither side may take a part for the whole: dropped while this stands, both are reset.
struct Unfinished<'a> {
    client: &'a Transport,
    backend: &'a Transport,
    is_cut: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.is_cut {
            self.client.reset_on_close();
            self.backend.reset_on_close();
        }
    }
}

/// The backend is to have no connections any more. A client that has no byte of an answer yet can be told.
fn cut_from_outside(exchange: &Exchange<'_>, cause: Cause) -> ExchangeEnd {
    if exchange.is_unanswered() {
        ExchangeEnd::Failed(Failure::new(503, "the backend was taken out of service", cause))
    } else {
        ExchangeEnd::Cut(cause, None)
    }
}

/// What the client is answered when no backend could be connected to.
fn no_backend(refusal: Refusal, failures: &[ConnectFailure]) -> RequestOutcome {
    let failed = |status, reason, cause| RequestOutcome::Failed(Failure::new(status, reason, cause));
    let cause = match refusal {
        Refusal::Closed(cause) => cause,
        Refusal::Rejected(Rejection::LeftQueue) => return RequestOutcome::Cut(Cause::ClientClosed),
        Refusal::Rejected(_) => return failed(503, "all backends are busy", Cause::Rejected),
    };
    if !failures.is_empty() && failures.iter().all(|failure| *failure == ConnectFailure::Timeout) {
        return failed(504, "no backend accepted the connection in time", cause);
    }
    let reason = match cause {
        Cause::NoBackend => "there is no backend to try",
        Cause::Internal => "the balancer is out of resources",
        _ => "no backend could be connected to",
    };
    failed(503, reason, cause)
}
