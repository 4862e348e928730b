//! The account of one request: counted and logged exactly once, however it ends.

use std::cell::Cell;
use std::time::{Instant, SystemTime};

use tracing::Span;

use crate::access_log::{Entry, HttpEntry};
use crate::protocol::http1::RequestHead;
use crate::telemetry::{Answerer, Cause, ClientFailure};

use super::super::attempts::Attempts;
use super::super::client_facts::ClientFacts;
use super::super::connect::ConnectContext;
use super::super::frontend::Frontend;
use super::super::worker::Worker;

/// The client left before the answer. nginx logs such requests with the same code.
const CLIENT_LEFT: u16 = 499;

/// How a request ended, for the access log.
#[derive(Clone, Copy)]
enum RequestCause {
    /// It was answered to its end.
    Completed,
    /// It ended before that.
    Ended(Cause),
}

impl RequestCause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Ended(cause) => cause.as_str(),
        }
    }
}

/// What is known of a request so far. Its drop counts and logs it.
pub(super) struct RequestRecord<'a> {
    worker: &'a Worker,
    frontend: &'a Frontend,
    context: ConnectContext<'a>,
    began: Instant,
    /// What the access log shows of the head; `None`: the listener is not logged.
    texts: Option<Texts>,
    pub(super) attempts: Attempts,
    /// What the connection had moved before, from and to the client.
    bytes_before: (u64, u64),
    status: Cell<Option<u16>>,
    answerer: Cell<Answerer>,
    /// `None`: it was cut, by the drain or by a bug of ours.
    cause: Cell<Option<RequestCause>>,
}

#[derive(Default)]
struct Texts {
    method: String,
    path: String,
    request_id: Option<String>,
    protocol: &'static str,
    headers: Vec<Option<String>>,
}

impl<'a> RequestRecord<'a> {
    /// `head`, with the bytes that it was parsed from, is `None` for a request whose head could not be read.
    pub(super) fn open(
        worker: &'a Worker,
        frontend: &'a Frontend,
        context: ConnectContext<'a>,
        head: Option<(&RequestHead, &[u8])>,
    ) -> Self {
        let tally = &context.account.tally;
        tally.await_first_byte();
        context.account.count_request();
        Self {
            worker,
            frontend,
            context,
            bytes_before: (tally.bytes_in(), tally.bytes_out()),
            began: Instant::now(),
            texts: frontend
                .access_log
                .as_ref()
                .map(|log| head.map(|head| Texts::new(head, log.headers())).unwrap_or_default()),
            attempts: Attempts::default(),
            status: Cell::new(None),
            answerer: Cell::new(Answerer::Lb),
            cause: Cell::new(None),
        }
    }

    /// The client gets an answer of this status.
    pub(super) fn answered(&self, status: u16, answerer: Answerer) {
        self.status.set(Some(status));
        self.answerer.set(answerer);
    }

    /// Whether the client has got a part of an answer.
    pub(super) fn is_answered(&self) -> bool {
        self.status.get().is_some()
    }

    /// It was answered to its end.
    pub(super) fn completed(&self) {
        self.cause.set(Some(RequestCause::Completed));
    }

    /// It ended before that, for this cause.
    pub(super) fn ended(&self, cause: Cause) {
        self.cause.set(Some(RequestCause::Ended(cause)));
    }

    /// Why the request was not served.
    fn failure(&self) -> Option<ClientFailure> {
        let cause = match self.cause.get() {
            Some(RequestCause::Ended(cause)) => Some(cause),
            Some(RequestCause::Completed) | None => None,
        };
        let ours = self.status.get().filter(|_| self.answerer.get() == Answerer::Lb);
        ours.and_then(|status| ClientFailure::of_answer(status, cause))
    }

    pub(super) fn span(&self) -> Span {
        self.context.span()
    }
}

impl Texts {
    fn new((head, bytes): (&RequestHead, &[u8]), headers: &[String]) -> Self {
        Self {
            method: text(head.method(bytes)),
            path: text(head.target(bytes)),
            request_id: head.header(bytes, "x-request-id").map(text),
            protocol: head.version.as_str(),
            headers: headers.iter().map(|name| head.header(bytes, name).map(text)).collect(),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Drop for RequestRecord<'_> {
    fn drop(&mut self) {
        let status = self.status.get().unwrap_or(CLIENT_LEFT);
        let duration = self.began.elapsed();
        let tally = &self.context.account.tally;
        let first_byte = tally.first_byte().map(|at| at - self.began);
        let counters = self.frontend.counters(self.worker.id);
        counters.request(status, self.answerer.get());
        if let Some(failure) = self.failure() {
            counters.failed(failure);
            self.context.upstream.pool().failures().count(failure);
        }
        self.frontend.stats.request_duration.record(duration);
        if let Some(first_byte) = first_byte {
            self.context.upstream.pool().histograms().first_byte.record(first_byte);
        }
        let (Some(log), Some(texts)) = (&self.frontend.access_log, &self.texts) else { return };
        let cause = self.cause.get().unwrap_or_else(|| RequestCause::Ended(self.context.account.cause_of_cut()));
        log.log(&Entry {
            time: SystemTime::now(),
            connection: self.context.account.id,
            listener: self.frontend.name(),
            client: &self.context.peer(),
            pool: Some(self.context.upstream.pool().name()),
            backend: self.attempts.backend(),
            attempts: &self.attempts.list(),
            bytes_in: tally.bytes_in() - self.bytes_before.0,
            bytes_out: tally.bytes_out() - self.bytes_before.1,
            connect: self.attempts.connect_time(),
            first_byte,
            duration,
            cause: cause.as_str(),
            reason: None,
            http: Some(HttpEntry {
                method: &texts.method,
                path: &texts.path,
                status,
                request_id: texts.request_id.as_deref(),
                protocol: texts.protocol,
                headers: &texts.headers,
            }),
            server_name: self.context.facts().and_then(ClientFacts::server_name),
            tls: self.context.facts().and_then(ClientFacts::tls_entry),
        });
    }
}
