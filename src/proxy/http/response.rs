//! The response's head: read from the backend, rewritten for the client, sent together with what of the body is there.

use std::task::{Context, Poll};
use std::time::Instant;

use crate::protocol::http1::{BadResponse, Body, ClientSide, ResponseHead, Version, write_response_head};
use crate::relay::{Direction, Pump};
use crate::telemetry::Cause;

use super::exchange::{Down, End, Exchange, Parties, Upload};
use super::framer::BodyFramer;

/// A backend that sends more of them before its response wants to keep us busy; real ones send one or two.
const MAX_INTERIM_RESPONSES: u8 = 64;

/// What is there before the response's head is.
#[derive(Default)]
pub(super) struct Waiting {
    /// The start of the head.
    partial: Vec<u8>,
    /// Interim responses that the client has not taken yet.
    unsent: Vec<u8>,
    interims: u8,
    /// The client has the first part of an interim response.
    is_within_interim: bool,
}

impl Waiting {
    /// Whether the client can be given another head than the backend's.
    pub(super) fn is_between_heads(&self) -> bool {
        !self.is_within_interim
    }
}

impl Exchange<'_> {
    /// Reads towards the response's head, passing on interim ones. `None`: wait, or go on with the body.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let Parties { worker, backend, .. } = self.parties;
        loop {
            if let Poll::Ready(Err(end)) = self.send_interims(cx) {
                return Some(end);
            }
            let Down::Head(waiting) = &mut self.down else { return None };
            if !waiting.unsent.is_empty() {
                // A client that doesn't take them holds back the backend.
                return None;
            }
            let partial = std::mem::take(&mut waiting.partial);
            let read = worker.resources.scratch.poll_receive(cx, backend, |cx, fresh| {
                if fresh.is_empty() {
                    return Some(ended(!partial.is_empty(), Cause::BackendClosed));
                }
                if partial.is_empty() {
                    return self.read_heads(cx, fresh);
                }
                self.read_heads(cx, &[&partial, fresh].concat())
            });
            match read {
                Poll::Pending => {
                    if let Down::Head(waiting) = &mut self.down {
                        waiting.partial = partial;
                    }
                    return None;
                }
                Poll::Ready(Err(_)) => return Some(ended(!partial.is_empty(), Cause::BackendReset)),
                Poll::Ready(Ok(Some(end))) => return Some(end),
                Poll::Ready(Ok(None)) => {}
            }
        }
    }

    /// Reads what heads `bytes` hold; the last one may be a part only.
    fn read_heads(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> Option<End> {
        let Parties { http, .. } = self.parties;
        let asked = self.request.head.asked(self.request.bytes());
        loop {
            let head = match ResponseHead::parse(bytes, asked, &http.limits) {
                Err(bad) => return Some(bad_response(bad)),
                Ok(Some(head)) => head,
                Ok(None) => {
                    if let Down::Head(waiting) = &mut self.down {
                        waiting.partial = bytes.to_vec();
                    }
                    return None;
                }
            };
            if !head.is_interim() {
                return self.take_head(cx, &head, bytes);
            }
            let Down::Head(waiting) = &mut self.down else { return None };
            waiting.interims += 1;
            if waiting.interims > MAX_INTERIM_RESPONSES {
                return Some(End::failed(502, "the backend sent too many interim responses", Cause::BackendClosed));
            }
            let version = self.request.head.version;
            // An HTTP/1.0 client knows none (RFC 9110 section 15.2).
            if version == Version::Http11 {
                write_response_head(&mut waiting.unsent, bytes, &head, ClientSide { version, close: false });
            }
            bytes = &bytes[head.len..];
            if bytes.is_empty() {
                return None;
            }
        }
    }

    fn send_interims(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Parties { client, context, .. } = self.parties;
        let Down::Head(waiting) = &mut self.down else { return Poll::Ready(Ok(())) };
        while !waiting.unsent.is_empty() {
            match client.poll_send(cx, &waiting.unsent) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Cut(Cause::ClientReset))),
                Poll::Ready(Ok(sent)) => {
                    waiting.unsent.drain(..sent);
                    waiting.is_within_interim = !waiting.unsent.is_empty();
                    context.moved(Direction::ToClient, sent);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The final head is at the start of `bytes`: from here on the client gets the backend's answer.
    fn take_head(&mut self, cx: &mut Context<'_>, head: &ResponseHead, bytes: &[u8]) -> Option<End> {
        let Down::Head(waiting) = &mut self.down else { return None };
        let mut unsent = std::mem::take(&mut waiting.unsent);
        self.judge_backend(head.status);
        let version = self.request.head.version;
        if head.is_upgrade() {
            if self.upload != Upload::Whole {
                return Some(End::failed(502, "the backend upgraded before the request's end", Cause::BackendClosed));
            }
            self.parties.record.answered(head.status);
            write_response_head(&mut unsent, bytes, head, ClientSide { version, close: false });
            unsent.extend_from_slice(&bytes[head.len..]);
            return Some(End::Upgraded(unsent));
        }
        self.begin_body(cx, head, bytes, &unsent)
    }

    /// Sends the head and what of the body is there, in one call.
    fn begin_body(&mut self, cx: &mut Context<'_>, head: &ResponseHead, bytes: &[u8], unsent: &[u8]) -> Option<End> {
        let Parties { worker, frontend, limits, client, record, context, idle_timer, .. } = self.parties;
        let version = self.request.head.version;
        // Where the upload isn't through yet, it may never be: then only closing tells the client.
        let client_keeps = self.request.head.keep_alive
            && self.upload == Upload::Whole
            && !worker.is_leaving()
            && !frontend.is_replaced()
            && !head.ends_by_close(version);
        let mut draft = worker.draft.borrow_mut();
        draft.clear();
        draft.extend_from_slice(unsent);
        write_response_head(&mut draft, bytes, head, ClientSide { version, close: !client_keeps });
        let mut body = Body::new(head.framing);
        let rest = &bytes[head.len..];
        let followed = match &mut body {
            Body::Chunked(scanner) if head.must_dechunk(version) => scanner.decode(rest, &mut draft),
            body => body.advance(rest).inspect(|progress| draft.extend_from_slice(&rest[..progress.consumed])),
        };
        let consumed = match followed {
            Err(error) => return Some(End::failed(502, error, Cause::BackendClosed)),
            Ok(progress) => progress.consumed,
        };
        record.answered(head.status);
        let sent = match client.poll_send(cx, &draft) {
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => return Some(End::Cut(Cause::ClientReset)),
            Poll::Ready(Ok(sent)) => sent,
        };
        context.moved(Direction::ToClient, sent);
        let backend_keeps = head.keep_alive && consumed == rest.len();
        if sent == draft.len() && body.is_done() && self.upload == Upload::Whole {
            return Some(End::Answered { backend_keeps, client_keeps });
        }
        idle_timer.set_limit(limits.idle);
        let framer =
            if head.must_dechunk(version) { BodyFramer::stripping_chunks(body) } else { BodyFramer::new(body) };
        let pump = Pump::new(Direction::ToClient, worker.resources.mode, framer).after(&draft[sent..]);
        self.down = Down::Body { pump, backend_keeps, client_keeps };
        None
    }

    /// A backend that answers is well, unless the configuration has it otherwise.
    fn judge_backend(&self, status: u16) {
        let lease = self.parties.lease;
        match status {
            502..=504 => lease.record_5xx(Instant::now()),
            _ => lease.record_success(Instant::now()),
        }
    }
}

fn ended(within_head: bool, cause: Cause) -> End {
    if within_head {
        End::failed(502, "the backend closed within the head of its response", cause)
    } else {
        End::Unanswered(cause)
    }
}

fn bad_response(bad: BadResponse) -> End {
    End::failed(502, format_args!("the backend's response is not acceptable: {bad}"), Cause::BackendClosed)
}
