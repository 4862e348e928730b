//! Why a header is refused: a variant for each cause, with text short enough for a log line. Always the sending proxy's
//! fault; the connection can't be used then, as it is unknown where its own bytes begin.

use std::fmt;

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Signature,
    // Version 1.
    Spacing,
    Protocol,
    Address,
    Port,
    LineEnd,
    LineTooLong,
    // Version 2.
    Version,
    Command,
    Family,
    Datagram,
    TooLong,
    AddressesCutShort,
    TlvOverrun,
    ChecksumLength,
    RepeatedChecksum,
    WrongChecksum,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "no PROXY protocol header",
            Self::Spacing => "fields not separated by one space",
            Self::Protocol => "protocol other than TCP4, TCP6 and UNKNOWN",
            Self::Address => "malformed address",
            Self::Port => "malformed port",
            Self::LineEnd => "line not ended by CRLF",
            Self::LineTooLong => "no CRLF within 107 bytes",
            Self::Version => "binary header of a version other than 2",
            Self::Command => "command other than LOCAL and PROXY",
            Self::Family => "unknown address family or transport protocol",
            Self::Datagram => "addresses of datagrams on a stream",
            Self::TooLong => "header longer than 4096 bytes",
            Self::AddressesCutShort => "length too small for the addresses",
            Self::TlvOverrun => "TLV that runs over the header's end",
            Self::ChecksumLength => "checksum of a length other than 4",
            Self::RepeatedChecksum => "more than one checksum",
            Self::WrongChecksum => "wrong checksum",
        })
    }
}

impl std::error::Error for Malformed {}
