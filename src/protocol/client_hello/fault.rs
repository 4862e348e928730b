//! Why bytes are no ClientHello: a variant for each cause, with text short enough for a log line. Always the client's
//! fault.

use std::fmt;

/// Why no hello can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotClientHello {
    // Of the records.
    NotHandshake,
    RecordVersion,
    RecordLength,
    OtherRecord,
    OtherMessage,
    BytesAfterMessage,
    TooLong,
    // Of the message.
    Version,
    CutShort,
    SessionId,
    CipherSuites,
    CompressionMethods,
    Extensions,
    RepeatedServerName,
    ServerNameList,
    HostName,
    Protocols,
}

impl fmt::Display for NotClientHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHandshake => "not TLS",
            Self::RecordVersion => "TLS record of an unknown version",
            Self::RecordLength => "empty or overlong TLS record",
            Self::OtherRecord => "another record amid the ClientHello",
            Self::OtherMessage => "TLS handshake message other than ClientHello",
            Self::BytesAfterMessage => "more than the ClientHello in its record",
            Self::TooLong => "ClientHello too long",
            Self::Version => "ClientHello of an unknown version",
            Self::CutShort => "ClientHello cut short",
            Self::SessionId => "malformed session id in the ClientHello",
            Self::CipherSuites => "malformed cipher suites in the ClientHello",
            Self::CompressionMethods => "malformed compression methods in the ClientHello",
            Self::Extensions => "malformed extensions in the ClientHello",
            Self::RepeatedServerName => "more than one server name in the ClientHello",
            Self::ServerNameList => "malformed server name list in the ClientHello",
            Self::HostName => "malformed server name in the ClientHello",
            Self::Protocols => "malformed or repeated list of protocols (ALPN) in the ClientHello",
        })
    }
}

impl std::error::Error for NotClientHello {}
