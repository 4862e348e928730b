//! One request as it is sent to a backend: the head with the configured headers, and the received part of the body.

use std::borrow::Cow;

use crate::protocol::http1::{
    Advance, Body, ChunkError, Passes, RequestHead, TrailerFilter, Variables, Version, write_request_head,
};

use super::super::http_settings::HttpSettings;
use super::connection_variables::ConnectionVariables;

/// A request whose head was accepted. Its received bytes stay until it is answered, so that they can be sent again.
pub(super) struct Request<'a> {
    pub(super) head: &'a RequestHead,
    /// What was received, from the head's first byte on.
    bytes: &'a [u8],
    /// The end of the message in `bytes`, as far as it was received.
    pub(super) end: usize,
    /// What of the received part of the body is for the backend.
    received_body: Cow<'a, [u8]>,
    /// What of the body is still to come.
    pub(super) body: Body<'a>,
    variables: &'a ConnectionVariables<'a>,
    http: &'a HttpSettings,
}

impl<'a> Request<'a> {
    /// # Errors
    /// The received part of a chunked body breaks the coding.
    pub(super) fn new(
        head: &'a RequestHead,
        bytes: &'a [u8],
        variables: &'a ConnectionVariables<'a>,
        http: &'a HttpSettings,
    ) -> Result<Self, ChunkError> {
        let passes = if http.passes_trailers {
            Passes::ChunksAndTrailers(TrailerFilter::OfRequest(&http.edits))
        } else {
            Passes::Chunks
        };
        let mut body = Body::new(head.framing, passes);
        let Advance { consumed, passed } = body.advance(&bytes[head.len..])?;
        Ok(Self { head, bytes, end: head.len + consumed, received_body: passed, body, variables, http })
    }

    /// Whether it may be sent a second time: twice has the same effect as once (RFC 9110 section 9.2.2), and all of its
    /// body is in the received bytes.
    pub(super) fn is_replayable(&self) -> bool {
        self.body.is_done() && self.head.is_idempotent(self.bytes)
    }

    /// What was received beyond the message.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.end..]
    }

    /// What was received, from the head's first byte on.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Appends the head for the backend, and the received part of the body. Returns the head's version.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Version {
        let ConnectionVariables { remote_addr, remote_port, server_addr, server_port, .. } = self.variables;
        let mut forwarded_for = Vec::new();
        if self.variables.trusts_forwarded {
            self.head.write_forwarded_for(self.bytes, &mut forwarded_for);
        }
        let id = if self.http.uses_request_id { self.request_id() } else { String::new() };
        let variables = Variables {
            host: self.head.host(self.bytes),
            http_host: self.head.authority(self.bytes),
            fields: self.head.fields(self.bytes),
            remote_addr,
            remote_port: *remote_port,
            forwarded_for: &forwarded_for,
            scheme: self.variables.scheme(self.head, self.bytes),
            request_id: id.as_bytes(),
            server_addr,
            server_port: *server_port,
            tls: self.variables.tls(),
        };
        let HttpSettings { edits, passes_trailers, .. } = self.http;
        let version = write_request_head(out, self.bytes, self.head, edits, *passes_trailers, &variables);
        out.extend_from_slice(&self.received_body);
        version
    }

    /// The client's id, else 32 hexadecimal digits as in nginx.
    fn request_id(&self) -> String {
        let sent = self.head.header(self.bytes, "x-request-id").filter(|id| !id.is_empty());
        let sent = sent.and_then(|id| std::str::from_utf8(id).ok());
        sent.map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned)
    }
}
