//! What a handshake with a client has agreed on, for logs, headers and backends.

use rustls::{CommonState, ProtocolVersion};

use super::certificate::subject_of;

/// A session with a client, once its handshake is over. It is resumed with the client that it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// `TLSv1.2` or `TLSv1.3`, as nginx and openssl write them.
    pub version: &'static str,
    /// The IANA name of the cipher suite, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// The protocol that was agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// Who the client is, by its certificate, which was verified.
    pub client: Option<Box<ClientIdentity>>,
}

/// The subject of a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// As RFC 4514 writes it: `CN=alice,O=Example`. Controls are escaped.
    pub subject: String,
    pub common_name: Option<String>,
}

impl SessionInfo {
    /// Of a session whose handshake is over.
    pub fn new(session: &CommonState, server_name: Option<&str>) -> Self {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        let client = session.peer_certificates().and_then(|chain| subject_of(chain.first()?));
        Self {
            version,
            cipher: cipher.strip_prefix("TLS13_").map_or(cipher, tls13_name),
            server_name: server_name.map(Into::into),
            alpn: session.alpn_protocol().map(Into::into),
            client: client.map(|(subject, common_name)| Box::new(ClientIdentity { subject, common_name })),
        }
    }
}

/// rustls's names of TLS 1.3 suites are its own.
fn tls13_name(rest: &'static str) -> &'static str {
    match rest {
        "AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}
