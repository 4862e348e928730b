//! Reads the server name from the body of the handshake message. It knows nothing of records.

use super::fault::NotClientHello;
use super::name::{is_ip_address, normalize};
use super::reader::Reader;
use super::records::read_message;

const MAX_SESSION_ID_BYTES: usize = 32;
const RANDOM_BYTES: usize = 32;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST_NAME: u8 = 0;

/// What routing needs of a hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case, without a trailing dot. `None`: the client named no host, or an IP address, which some do although
    /// RFC 6066 section 3 forbids it.
    pub server_name: Option<String>,
}

/// Reads the hello that `bytes` begin with; `None`: more bytes are needed. What follows it isn't looked at. The verdict
/// is the same wherever the network cut the bytes: records are judged byte by byte, the message once it is complete.
///
/// # Errors
/// The bytes are no ClientHello, or one that is longer than `MAX_HELLO_BYTES`.
pub fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, NotClientHello> {
    let Some(message) = read_message(bytes)? else {
        return Ok(None);
    };
    Ok(Some(ClientHello { server_name: server_name(&message)? }))
}

/// `message` is the handshake message's body, from its legacy_version on.
fn server_name(message: &[u8]) -> Result<Option<String>, NotClientHello> {
    let mut body = Reader::new(message);
    // The major version of SSL 3.0 to TLS 1.3. Which of them is acceptable, the backend decides.
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
    host.filter(|host| !is_ip_address(host))
        .map(|host| normalize(host).map_err(|_| NotClientHello::HostName))
        .transpose()
}
