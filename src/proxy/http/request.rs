//! One request as it is sent to a backend: the head with the configured headers, and the received part of the body.

use std::net::IpAddr;

use crate::net::{Peer, Transport};
use crate::protocol::http1::{Body, ChunkError, RequestHead, Variables, write_request_head};

use super::super::frontend::Frontend;
use super::super::http_settings::HttpSettings;

/// Where a connection's requests come from, for the variables of `set_headers`: the same for all of them.
pub(super) struct ForwardedFrom {
    address: String,
    port: u16,
    server_port: u16,
    is_trusted: bool,
}

impl ForwardedFrom {
    pub(super) fn new(frontend: &Frontend, http: &HttpSettings, client: &Transport, peer: Peer) -> Self {
        let ip = peer.ip();
        let port = match peer {
            Peer::Tcp(address) => address.port(),
            Peer::Unix => 0,
        };
        Self {
            // As nginx writes the peer of a unix socket.
            address: ip.map_or_else(|| "unix:".to_owned(), |ip: IpAddr| ip.to_string()),
            port,
            // A system call, which most configurations have no use for.
            server_port: if http.uses_server_port {
                client.local_address().map_or(0, |address| address.port())
            } else {
                0
            },
            is_trusted: frontend.access_rules.trusts_forwarded(ip),
        }
    }
}

/// A request whose head was accepted. Its received bytes stay until it is answered, so that they can be sent again.
pub(super) struct Request<'a> {
    pub(super) head: &'a RequestHead,
    /// What was received, from the head's first byte on.
    bytes: &'a [u8],
    /// The end of the message in `bytes`, as far as it was received.
    pub(super) end: usize,
    /// What of the body is still to come.
    pub(super) body: Body,
    forwarded_from: &'a ForwardedFrom,
    http: &'a HttpSettings,
}

impl<'a> Request<'a> {
    /// # Errors
    /// The received part of a chunked body breaks the coding.
    pub(super) fn new(
        head: &'a RequestHead,
        bytes: &'a [u8],
        forwarded_from: &'a ForwardedFrom,
        http: &'a HttpSettings,
    ) -> Result<Self, ChunkError> {
        let mut body = Body::new(head.framing);
        let progress = body.advance(&bytes[head.len..])?;
        Ok(Self { head, bytes, end: head.len + progress.consumed, body, forwarded_from, http })
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

    /// Appends the head for the backend, and the received part of the body.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let ForwardedFrom { address, port, server_port, is_trusted } = self.forwarded_from;
        // What a proxy before this one reports is believed only of a trusted one: any client can send these headers.
        let mut forwarded_for = Vec::new();
        let mut scheme = "http";
        if *is_trusted {
            self.head.write_forwarded_for(self.bytes, &mut forwarded_for);
            let proto = self.head.header(self.bytes, "x-forwarded-proto");
            if proto.is_some_and(|proto| proto.eq_ignore_ascii_case(b"https")) {
                scheme = "https";
            }
        }
        let id = if self.http.uses_request_id { self.request_id() } else { String::new() };
        let variables = Variables {
            host: self.head.host(self.bytes),
            remote_addr: address,
            remote_port: *port,
            forwarded_for: &forwarded_for,
            scheme,
            request_id: id.as_bytes(),
            server_port: *server_port,
        };
        write_request_head(out, self.bytes, self.head, &self.http.edits, &variables);
        out.extend_from_slice(&self.bytes[self.head.len..self.end]);
    }

    /// The client's id, else 32 hexadecimal digits as in nginx.
    fn request_id(&self) -> String {
        let sent = self.head.header(self.bytes, "x-request-id").filter(|id| !id.is_empty());
        let sent = sent.and_then(|id| std::str::from_utf8(id).ok());
        sent.map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned)
    }
}
