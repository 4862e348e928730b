//! Reads server name and protocols from the body of the handshake message. It knows nothing of records.

use super::fault::NotClientHello;
use super::name::{is_ip_address, normalize};
use super::reader::Reader;
use super::records::read_message;

const MAX_SESSION_ID_BYTES: usize = 32;
const RANDOM_BYTES: usize = 32;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST_NAME: u8 = 0;

/// What routing needs of a hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case, without a trailing dot. `None`: the client named no host, or an IP address, which some do although
    /// RFC 6066 section 3 forbids it.
    pub server_name: Option<String>,
    /// As on the wire: a byte with the length before each.
    pub(super) protocols: Vec<u8>,
}

impl ClientHello {
    /// The protocols inside TLS that the client offers (ALPN, RFC 7301), the one that it likes best first.
    pub fn protocols(&self) -> impl Iterator<Item = &[u8]> {
        let mut list = Reader::new(&self.protocols);
        std::iter::from_fn(move || list.short_vector())
    }
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
    read(&message).map(Some)
}

/// `message` is the handshake message's body, from its legacy_version on.
fn read(message: &[u8]) -> Result<ClientHello, NotClientHello> {
    let mut body = Reader::new(message);
    // The major version of SSL 3.0 to TLS 1.3. Which of them is acceptable, the backend decides.
    if !matches!(body.take(2), Some([3, _])) {
        return Err(NotClientHello::Version);
    }
    body.take(RANDOM_BYTES).ok_or(NotClientHello::CutShort)?;
    if body.short_vector().is_none_or(|id| id.len() > MAX_SESSION_ID_BYTES) {
        return Err(NotClientHello::SessionId);
    }
    if body.long_vector().is_none_or(|suites| suites.is_empty() || !suites.len().is_multiple_of(2)) {
        return Err(NotClientHello::CipherSuites);
    }
    if body.short_vector().is_none_or(<[u8]>::is_empty) {
        return Err(NotClientHello::CompressionMethods);
    }
    // Before TLS 1.3 a hello may end here (RFC 5246 section 7.4.1.2).
    if body.is_empty() {
        return Ok(ClientHello::default());
    }
    let mut extensions = body.last_long_vector().ok_or(NotClientHello::Extensions)?;
    let (mut names, mut protocols) = (None, None);
    while !extensions.is_empty() {
        let (kind, data) = extensions.u16().zip(extensions.long_vector()).ok_or(NotClientHello::Extensions)?;
        if kind == EXTENSION_SERVER_NAME && names.replace(data).is_some() {
            return Err(NotClientHello::RepeatedServerName);
        }
        if kind == EXTENSION_ALPN && protocols.replace(data).is_some() {
            return Err(NotClientHello::Protocols);
        }
    }
    Ok(ClientHello {
        server_name: names.map_or(Ok(None), host_name)?,
        protocols: protocols.map_or(Ok(Vec::new()), protocol_list)?,
    })
}

/// At least one, and none of them empty (RFC 7301 section 3.1).
fn protocol_list(extension: &[u8]) -> Result<Vec<u8>, NotClientHello> {
    let mut extension = Reader::new(extension);
    let list = extension.long_vector().ok_or(NotClientHello::Protocols)?;
    if !extension.is_empty() {
        return Err(NotClientHello::Protocols);
    }
    let mut protocols = Reader::new(list);
    while protocols.short_vector().is_some_and(|protocol| !protocol.is_empty()) {
        if protocols.is_empty() {
            return Ok(list.to_vec());
        }
    }
    Err(NotClientHello::Protocols)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hello_with(extensions: &[u8]) -> Result<ClientHello, NotClientHello> {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("a short text").to_be_bytes();
        let start = [&[3, 3][..], &[0; RANDOM_BYTES], b"\0\0\x02\x13\x01\x01\0"].concat();
        read(&[&start[..], &length(extensions), extensions].concat())
    }

    #[test]
    fn protocols_are_in_the_clients_order() {
        let hello = hello_with(b"\0\x10\0\x0e\0\x0c\x02h2\x08http/1.1").expect("a sound hello");
        assert_eq!(hello.protocols().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
        assert_eq!(ClientHello::default().protocols().count(), 0);
    }

    #[test]
    fn a_list_of_protocols_that_breaks_the_rules_is_no_hello() {
        for extensions in [
            &b"\0\x10\0\0"[..],
            b"\0\x10\0\x02\0\0",
            b"\0\x10\0\x03\0\x01\0",
            b"\0\x10\0\x04\0\x02\x02h",
            b"\0\x10\0\x05\0\x02\x01hx",
            b"\0\x10\0\x04\0\x02\x01h\0\x10\0\x04\0\x02\x01h",
        ] {
            assert_eq!(hello_with(extensions), Err(NotClientHello::Protocols), "{extensions:?}");
        }
    }
}
