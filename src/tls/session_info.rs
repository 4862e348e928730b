//! What a handshake with a client has agreed on, for logs, headers and backends.

use rustls::{CipherSuite, CommonState, ProtocolVersion};

use super::certificate::subject_of;

/// A session with a client, once its handshake is over. It is resumed with the client that it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// `TLSv1.2` or `TLSv1.3`, as nginx and openssl write them.
    pub version: &'static str,
    /// `TLS_AES_128_GCM_SHA256` or `ECDHE-RSA-AES128-GCM-SHA256`, say.
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
        let cipher = session.negotiated_cipher_suite().map(|suite| name_of(suite.suite())).unwrap_or_default();
        let client = session.peer_certificates().and_then(|chain| subject_of(chain.first()?));
        Self {
            version,
            cipher,
            server_name: server_name.map(Into::into),
            alpn: session.alpn_protocol().map(Into::into),
            client: client.map(|(subject, common_name)| Box::new(ClientIdentity { subject, common_name })),
        }
    }
}

/// As openssl, nginx and HAProxy write it.
fn name_of(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other.as_str().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

    use super::*;

    #[test]
    fn every_suite_has_the_name_that_openssl_gives_it() {
        for suite in ALL_CIPHER_SUITES {
            let name = name_of(suite.suite());
            assert!(name.starts_with("TLS_") || name.starts_with("ECDHE-"), "{name}");
            assert!(!name.contains("_WITH_"), "{name}");
        }
    }
}
