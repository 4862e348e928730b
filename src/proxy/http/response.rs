//! Reads a backend's response up to its final head. Knows no socket: bytes in, heads out.

use std::borrow::Cow;

use crate::backends::Evidence;
use crate::protocol::http1::{BadResponse, HeadLimits, RequestFacts, ResponseHead};
use crate::telemetry::Cause;

use super::failure::Failure;
use super::head_pace::HeadPace;

/// Real backends send one or two before their response; an endless row of them would cost work without end.
const MAX_INTERIM_RESPONSES: u8 = 64;

/// Gathers the heads of a response: interim ones, and the final one.
#[derive(Default)]
pub(super) struct ResponseReader {
    /// The start of a head that is not complete.
    partial: Vec<u8>,
    pace: HeadPace,
    /// Interim responses so far.
    interims: u8,
}

/// The final head of a response, and what was received behind it.
pub(super) struct FinalHead<'b> {
    pub(super) head: ResponseHead,
    /// Interim responses may come before it.
    received: Cow<'b, [u8]>,
    start: usize,
}

impl FinalHead<'_> {
    /// From the head's first byte on.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.received[self.start..]
    }
}

impl ResponseReader {
    /// Whether a part of a head was received.
    pub(super) fn is_within_head(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Takes the next bytes from the backend. `pass_on` is called with each interim response, and the bytes that begin
    /// with it; `None`: the final head is not complete yet.
    ///
    /// # Errors
    /// The response is not acceptable: the answer that the client gets instead.
    pub(super) fn read<'b>(
        &mut self,
        fresh: &'b [u8],
        request: RequestFacts,
        limits: &HeadLimits,
        mut pass_on: impl FnMut(&ResponseHead, &[u8]),
    ) -> Result<Option<FinalHead<'b>>, Failure> {
        // Nearly always the whole head comes in one piece, and nothing is copied.
        let received = if self.partial.is_empty() {
            Cow::Borrowed(fresh)
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(fresh);
            Cow::Owned(whole)
        };
        let (mut start, mut fresh) = (0, fresh.len());
        while start < received.len() {
            let bytes = &received[start..];
            let is_due = self.pace.is_due(bytes, fresh, limits);
            let head = if is_due { ResponseHead::parse(bytes, request, limits).map_err(not_acceptable)? } else { None };
            let Some(head) = head else {
                self.partial = received.into_owned();
                self.partial.drain(..start);
                return Ok(None);
            };
            if !head.is_interim() {
                return Ok(Some(FinalHead { head, received, start }));
            }
            self.interims += 1;
            if self.interims > MAX_INTERIM_RESPONSES {
                let reason = "the backend sent too many interim responses";
                return Err(Failure::of_backend(502, reason, Cause::BackendClosed, Evidence::InvalidResponse));
            }
            pass_on(&head, bytes);
            start += head.len;
            (fresh, self.pace) = (received.len() - start, HeadPace::default());
        }
        Ok(None)
    }
}

fn not_acceptable(bad: BadResponse) -> Failure {
    let reason = format_args!("the backend's response is not acceptable: {bad}");
    Failure::of_backend(502, reason, Cause::BackendClosed, Evidence::InvalidResponse)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &[u8] =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody";

    /// The statuses of the heads that come out, whatever the pieces in which the bytes come in.
    fn statuses_of(pieces: &[&[u8]]) -> Vec<u16> {
        let mut reader = ResponseReader::default();
        let mut statuses = Vec::new();
        for piece in pieces {
            let pass_on = |head: &ResponseHead, _: &[u8]| statuses.push(head.status);
            let read = reader.read(piece, RequestFacts::default(), &HeadLimits::default(), pass_on);
            if let Some(last) = read.expect("it is acceptable") {
                statuses.push(last.head.status);
                break;
            }
        }
        statuses
    }

    #[test]
    fn heads_come_out_alike_however_the_bytes_are_cut() {
        for cut in 0..=RESPONSE.len() {
            let (first, second) = RESPONSE.split_at(cut);
            assert_eq!(statuses_of(&[first, second]), [100, 103, 200], "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = RESPONSE.chunks(1).collect();
        assert_eq!(statuses_of(&bytes), [100, 103, 200]);
    }

    #[test]
    fn what_follows_the_final_head_comes_with_it() {
        let mut reader = ResponseReader::default();
        let read = reader.read(RESPONSE, RequestFacts::default(), &HeadLimits::default(), |_, _| {});
        let last = read.expect("it is acceptable").expect("it is complete");
        assert_eq!(&last.bytes()[last.head.len..], b"body");
    }

    #[test]
    fn endless_interim_responses_are_refused() {
        let mut reader = ResponseReader::default();
        let interims = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(usize::from(MAX_INTERIM_RESPONSES) + 1);
        let mut passed_on = 0;
        let read = reader.read(&interims, RequestFacts::default(), &HeadLimits::default(), |_, _| passed_on += 1);
        assert_eq!(read.err().map(|failure| failure.status), Some(502));
        assert_eq!(passed_on, MAX_INTERIM_RESPONSES);
    }
}
