//! Reads the server name out of a TLS ClientHello as it passes by (RFC 8446 section 4.1.2, RFC 6066 section 3), so that
//! a connection can be routed while TLS stays between client and backend. Lengths are checked exactly; what they
//! frame is skipped unless it leads to the name: versions, ciphers, GREASE (RFC 8701) and unknown extensions alike.
//! Under Encrypted ClientHello (RFC 9849) the name is the outer one, which is all that anybody sees on the way.
//! It knows no keys, answers nothing, and doesn't tell a hello that a backend will like from one that it won't.

mod fault;
pub(crate) mod name;
mod pattern;
mod reader;
mod records;
#[cfg(test)]
mod vectors;

pub use fault::NotClientHello;
pub use pattern::ServerNamePattern;

use reader::Reader;

/// The most bytes that a hello may take on the wire, record headers included. Browsers send 2 KiB with a hybrid key
/// share; two larger shares (ML-KEM-1024), a second hello inside for ECH and a session ticket stay below 8 KiB.
/// So: what fills one whole record (2^14), as nginx and HAProxy buffer, and 1 KiB for the headers of
/// those who cut it into up to 200 records.
pub const MAX_HELLO_BYTES: usize = 16 * 1024 + 1024;

const MAX_SESSION_ID_BYTES: usize = 32;
const RANDOM_BYTES: usize = 32;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST_NAME: u8 = 0;

/// What a hello says to those on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case, without a trailing dot; `None` where the client named no host, or an IP address, which it must
    /// not (RFC 6066 section 3) and some do.
    pub server_name: Option<String>,
}

/// Reads the hello that `bytes` begin with: `None` asks for more of them. What comes after it isn't looked at, and the
/// verdict is the same wherever the network cut the bytes; that of a hello's inside falls once the hello is complete.
///
/// # Errors
/// The bytes are no ClientHello, or none that `MAX_HELLO_BYTES` could hold.
pub fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, NotClientHello> {
    let Some(message) = records::read_message(bytes)? else {
        return Ok(None);
    };
    Ok(Some(ClientHello { server_name: server_name(&message)? }))
}

/// The body of the handshake message, from its legacy_version on.
fn server_name(message: &[u8]) -> Result<Option<String>, NotClientHello> {
    let mut body = Reader::new(message);
    // SSL 3.0 to TLS 1.3 have major version 3; which one is for the backend to like.
    if !matches!(body.take(2), Some([3, _])) {
        return Err(NotClientHello::Version);
    }
    body.take(RANDOM_BYTES).ok_or(NotClientHello::CutShort)?;
    let is_id = |id: &&[u8]| id.len() <= MAX_SESSION_ID_BYTES;
    body.short_vector().filter(is_id).ok_or(NotClientHello::SessionId)?;
    let are_suites = |suites: &&[u8]| !suites.is_empty() && suites.len().is_multiple_of(2);
    body.long_vector().filter(are_suites).ok_or(NotClientHello::CipherSuites)?;
    body.short_vector().filter(|methods| !methods.is_empty()).ok_or(NotClientHello::CompressionMethods)?;
    // Before TLS 1.3 a hello may end here (RFC 5246 section 7.4.1.2).
    if body.is_empty() {
        return Ok(None);
    }
    let mut extensions = body.last_long_vector().ok_or(NotClientHello::Extensions)?;
    let mut list = None;
    while !extensions.is_empty() {
        let (kind, data) = extensions.u16().zip(extensions.long_vector()).ok_or(NotClientHello::Extensions)?;
        if kind == EXTENSION_SERVER_NAME && list.replace(data).is_some() {
            return Err(NotClientHello::RepeatedServerName);
        }
    }
    list.map_or(Ok(None), host_name)
}

/// The one host name of a list; names of other types are skipped, as each begins with its length (RFC 6066 section 3).
fn host_name(list: &[u8]) -> Result<Option<String>, NotClientHello> {
    let malformed = NotClientHello::ServerNameList;
    let mut names = Reader::new(list).last_long_vector().filter(|names| !names.is_empty()).ok_or(malformed)?;
    let mut host = None;
    while !names.is_empty() {
        let (kind, name) = names.u8().zip(names.long_vector()).ok_or(malformed)?;
        if kind == NAME_TYPE_HOST_NAME && host.replace(name).is_some() {
            return Err(NotClientHello::RepeatedServerName);
        }
    }
    host.filter(|host| !name::is_ip_address(host))
        .map(|host| name::normalize(host).map_err(|_| NotClientHello::HostName))
        .transpose()
}
