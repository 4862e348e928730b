//! What version 2 says of the client's TLS in TLVs (sections 2.2.1, 2.2.2 and 2.2.5).

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;

/// The client connected over TLS.
const CLIENT_SSL: u8 = 0x01;
/// It showed a certificate on this connection, or when its session began.
const CLIENT_CERT: u8 = 0x02 | 0x04;

/// Names have at most 64 characters (RFC 5280, appendix A.1, ub-common-name); a longer one is cut there, in the header
/// alone: a reader's buffer must not depend on what a certificate says.
const MAX_COMMON_NAME_BYTES: usize = 256;

/// The TLS that the proxy has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFacts<'a> {
    /// `TLSv1.3`
    pub version: &'a str,
    pub cipher: &'a str,
    /// The name that the client asked for.
    pub server_name: Option<&'a str>,
    /// The protocol that was agreed on.
    pub alpn: Option<&'a [u8]>,
    /// The common name of its certificate, empty where that has none; `None`: it has shown none.
    pub client: Option<&'a str>,
}

/// Appends the TLVs.
pub(super) fn write(tls: &TlsFacts<'_>, out: &mut Vec<u8>) {
    if let Some(alpn) = tls.alpn {
        write_tlv(ALPN, alpn, out);
    }
    if let Some(name) = tls.server_name {
        write_tlv(AUTHORITY, name.as_bytes(), out);
    }
    let client = if tls.client.is_some() { CLIENT_SSL | CLIENT_CERT } else { CLIENT_SSL };
    // Zero: it was verified. Whoever shows none has none that could be.
    let verify = u32::from(tls.client.is_none());
    let mut ssl = vec![client];
    ssl.extend_from_slice(&verify.to_be_bytes());
    write_tlv(SSL_VERSION, tls.version.as_bytes(), &mut ssl);
    if let Some(name) = tls.client.filter(|name| !name.is_empty()) {
        write_tlv(SSL_CN, cut(name).as_bytes(), &mut ssl);
    }
    write_tlv(SSL_CIPHER, tls.cipher.as_bytes(), &mut ssl);
    write_tlv(SSL, &ssl, out);
}

fn cut(name: &str) -> &str {
    let end = (0..=MAX_COMMON_NAME_BYTES).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

fn write_tlv(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).expect("names have 256 bytes at most");
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}
