//! The account of one request: counted and logged exactly once, whatever becomes of it.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::{Instant, SystemTime};

use crate::access_log::{Entry, HttpEntry, escaped};
use crate::lifecycle::ConnectionId;
use crate::net::Peer;
use crate::protocol::http1::RequestHead;
use crate::relay::Tally;

use super::super::frontend::{Frontend, Worker};
use super::super::record::Attempts;
use super::super::upstream::Upstream;
use super::settings::Http;

/// The client left before the answer: nginx's code, known to every reader of logs.
const CLIENT_LEFT: u16 = 499;
/// The cause of a request that was answered to its end.
const COMPLETED: &str = "completed";

/// What is known of a request so far.
pub(super) struct RequestRecord<'a> {
    worker: &'a Worker,
    frontend: &'a Frontend,
    upstream: &'a Upstream,
    http: &'a Http,
    connection: ConnectionId,
    peer: Peer,
    began: Instant,
    /// What the log will show; not kept where nothing is logged.
    texts: Option<Texts>,
    pub(super) attempts: Attempts,
    tally: &'a Tally,
    status: Cell<Option<u16>>,
    /// `None`: it was cut, by the drain or by a bug of ours.
    cause: Cell<Option<&'static str>>,
}

#[derive(Default)]
struct Texts {
    method: String,
    path: String,
    request_id: Option<String>,
}

impl<'a> RequestRecord<'a> {
    /// Begins with what was read of the request; `None` where its head could not be read.
    pub(super) fn open(
        worker: &'a Worker,
        frontend: &'a Frontend,
        upstream: &'a Upstream,
        http: &'a Http,
        (connection, peer): (ConnectionId, Peer),
        tally: &'a Tally,
        head: Option<(&RequestHead, &[u8])>,
    ) -> Self {
        Self {
            worker,
            frontend,
            upstream,
            http,
            connection,
            peer,
            began: Instant::now(),
            texts: frontend.access_log.as_ref().map(|_| head.map(Texts::new).unwrap_or_default()),
            attempts: Attempts::default(),
            tally,
            status: Cell::new(None),
            cause: Cell::new(None),
        }
    }

    /// The client gets an answer of this status.
    pub(super) fn answered(&self, status: u16) {
        self.status.set(Some(status));
    }

    /// It was answered to its end.
    pub(super) fn completed(&self) {
        self.cause.set(Some(COMPLETED));
    }

    /// It ended before that, for this cause.
    pub(super) fn ended(&self, cause: &'static str) {
        self.cause.set(Some(cause));
    }
}

impl Texts {
    fn new((head, bytes): (&RequestHead, &[u8])) -> Self {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            match escaped(&text) {
                Cow::Borrowed(_) => text.into_owned(),
                Cow::Owned(escaped) => escaped,
            }
        };
        Self {
            method: text(head.method(bytes)),
            path: text(head.target(bytes)),
            request_id: head.header(bytes, "x-request-id").map(text),
        }
    }
}

impl Drop for RequestRecord<'_> {
    fn drop(&mut self) {
        let status = self.status.get().unwrap_or(CLIENT_LEFT);
        let duration = self.began.elapsed();
        let first_byte = self.tally.first_byte().map(|at| at - self.began);
        self.frontend.counters(self.worker.id).request(status);
        self.http.duration.record(duration);
        if let Some(first_byte) = first_byte {
            self.upstream.histograms.first_byte.record(first_byte);
        }
        let (Some(log), Some(texts)) = (&self.frontend.access_log, &self.texts) else { return };
        log.log(&Entry {
            time: SystemTime::now(),
            connection: self.connection,
            listener: self.frontend.name(),
            client: &self.peer,
            pool: Some(self.upstream.pool().name()),
            backend: self.attempts.backend(),
            attempts: &self.attempts.list(),
            bytes_in: self.tally.bytes_in(),
            bytes_out: self.tally.bytes_out(),
            connect: self.attempts.connect_time(),
            first_byte,
            duration,
            cause: self.cause.get().unwrap_or_else(|| self.worker.cause_of_a_cut().as_str()),
            reason: None,
            http: Some(HttpEntry {
                method: &texts.method,
                path: &texts.path,
                status,
                request_id: texts.request_id.as_deref(),
            }),
        });
    }
}
