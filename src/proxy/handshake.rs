//! TLS with a client, which the listener ends: the handshake, what it says of the client, and what a client is told
//! whose handshake fails.

use rustls::{CertificateError, CommonState, Error, PeerIncompatible, ProtocolVersion};

use crate::net::{HandshakeError, Transport};
use crate::protocol::client_hello;
use crate::protocol::http1::Version;
use crate::telemetry::{Cause, HandshakeFailure, HandshakeKind, Rejection};
use crate::tls::{self, Session, SessionInfo};

use super::connections::Connection;
use super::http;
use super::record::connection_span;
use super::refusal::Refusal;
use super::worker::Worker;

/// Longer than that of any method in use.
const MAX_METHOD_BYTES: usize = 16;

/// What a client is told that speaks HTTP without TLS.
const PLAIN_HTTP: &str = "this port speaks TLS; use https";

/// One client's handshake.
pub(super) struct Handshake<'a> {
    pub(super) worker: &'a Worker,
    pub(super) connection: &'a Connection,
    pub(super) client: &'a Transport,
}

impl Handshake<'_> {
    /// Shakes hands within the listener's time for what comes first. Safe to cancel.
    pub(super) async fn run(&self, server: &tls::Server) -> Result<SessionInfo, Refusal> {
        let account = self.connection.account();
        let frontend = &*account.frontend;
        let session = Session::server(server.current()).map_err(|error| {
            tracing::warn!(listener = frontend.name(), %error, "TLS can't be served");
            Refusal::Closed(Cause::Internal)
        })?;
        let mut first = FirstBytes::default();
        let mut look = |bytes: &[u8]| first.look(bytes);
        let shaken = self.client.start_tls(session, &mut look);
        let counters = frontend.counters(self.worker.id).handshakes();
        let (words, failure, is_over) = match tokio::time::timeout(frontend.preface_timeout, shaken).await {
            Ok(Ok(())) => {
                let agreed = self.client.with_tls(|state| -> Result<_, Error> {
                    server.judge_resumed(state)?;
                    counters.worked(kind_of(state));
                    Ok(SessionInfo::new(state, first.server_name.as_deref()))
                });
                match agreed.expect("the handshake was made") {
                    Ok(agreed) => return Ok(agreed),
                    Err(error) => (error.to_string(), failure_of(&HandshakeError::Tls(error)), true),
                }
            }
            Ok(Err(error)) => (error.to_string(), failure_of(&error), false),
            Err(_) => ("it did not come in time".to_owned(), HandshakeFailure::Timeout, false),
        };
        counters.failed(failure);
        connection_span(account.id, account.peer()).in_scope(|| {
            let reason = Rejection::TlsHandshake.as_str();
            tracing::debug!(reason, handshake = failure.as_str(), error = words, "client refused");
        });
        if is_over {
            // TLS has no more alerts for it, and a clean end would look like an empty answer.
            self.client.reset_on_close();
        } else {
            self.tell(failure).await;
        }
        Err(Rejection::TlsHandshake.into())
    }

    /// Lets the client have its alert, or in HTTP's own words what was wrong; a client that is gone is reset.
    async fn tell(&self, failure: HandshakeFailure) {
        let Self { worker, connection, client } = *self;
        if matches!(failure, HandshakeFailure::ClientLeft | HandshakeFailure::Timeout) {
            return client.reset_on_close();
        }
        let idle_timer = &connection.idle_timer;
        idle_timer.touch();
        idle_timer.set_limit(connection.account().frontend.preface_timeout);
        let is_told = match failure {
            HandshakeFailure::PlainHttp => {
                let page = http::page(400, PLAIN_HTTP, Version::Http11, false, false);
                http::send(client, &page, idle_timer).await
            }
            _ => true,
        };
        if is_told {
            http::linger(client, &worker.resources.scratch, idle_timer).await;
        }
    }
}

/// What the client's first bytes show, before rustls sees them.
#[derive(Default)]
struct FirstBytes {
    server_name: Option<String>,
    is_hello_over: bool,
}

impl FirstBytes {
    /// `false`: it is HTTP.
    fn look(&mut self, bytes: &[u8]) -> bool {
        if self.is_hello_over {
            return true;
        }
        // A part of a hello, or no hello: rustls judges it.
        if let Ok(hello) = client_hello::parse(bytes) {
            self.is_hello_over = hello.is_some();
            self.server_name = hello.and_then(|hello| hello.server_name);
            return true;
        }
        self.is_hello_over = true;
        !begins_with_method(bytes)
    }
}

/// A method and a space (RFC 9112, 3); methods are upper case.
fn begins_with_method(bytes: &[u8]) -> bool {
    let most = &bytes[..bytes.len().min(MAX_METHOD_BYTES + 1)];
    let method = most.iter().position(|byte| *byte == b' ').map(|end| &most[..end]);
    method.is_some_and(|method| !method.is_empty() && method.iter().all(u8::is_ascii_uppercase))
}

fn kind_of(state: &CommonState) -> HandshakeKind {
    HandshakeKind {
        is_tls13: state.protocol_version() == Some(ProtocolVersion::TLSv1_3),
        is_resumed: state.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    }
}

fn failure_of(error: &HandshakeError) -> HandshakeFailure {
    let error = match error {
        HandshakeError::NotWanted => return HandshakeFailure::PlainHttp,
        HandshakeError::Lost(_) => return HandshakeFailure::ClientLeft,
        HandshakeError::Tls(error) => error,
    };
    match error {
        Error::PeerIncompatible(reason) => match reason {
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Every client of TLS 1.2 sends it (RFC 5246, 7.4.1.4.1 has a rule for the others).
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13 => HandshakeFailure::NoSharedVersion,
            _ => HandshakeFailure::NoSharedCipher,
        },
        Error::NoApplicationProtocol => HandshakeFailure::NoSharedProtocol,
        Error::NoCertificatesPresented => HandshakeFailure::NoCertificate,
        Error::InvalidCertificate(fault) => match fault {
            CertificateError::UnknownIssuer => HandshakeFailure::UnknownCa,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => HandshakeFailure::CertificateExpired,
            CertificateError::Revoked => HandshakeFailure::CertificateRevoked,
            _ => HandshakeFailure::BadCertificate,
        },
        Error::AlertReceived(_) => HandshakeFailure::RefusedByClient,
        Error::InvalidMessage(_) => HandshakeFailure::NotTls,
        // No certificate was found for the name: the only such error of a server (rustls 0.23, server/hs.rs).
        Error::General(_) => HandshakeFailure::UnknownName,
        _ => HandshakeFailure::Protocol,
    }
}
