//! Why a message is refused: a variant for each cause, with text short enough for an error page or a log line.
//! A client's fault (`RequestError`) and a backend's (`BadResponse`) are different types, as they are answered, counted
//! and logged differently.

use std::fmt;

/// Causes that requests and responses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    BareCr,
    BareLf,
    ControlByte,
    MalformedVersion,
    UnsupportedVersion,
    FoldedLine,
    EmptyName,
    MalformedName,
    MissingColon,
    SpaceBeforeColon,
    MalformedContentLength,
    RepeatedContentLength,
    LengthAndEncoding,
    TransferEncoding,
    EncodingInHttp10,
    TooManyConnectionOptions,
    TooManyHeaders,
    HeadTooLarge,
    LineTooLong,
}

/// Why a client's request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    Fault(Fault),
    MalformedMethod,
    Connect,
    MalformedTarget,
    MissingHost,
    RepeatedHost,
    MalformedHost,
}

/// Why a backend's response can't be passed on; the client gets a 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadResponse {
    Fault(Fault),
    MalformedStatus,
    UnrequestedUpgrade,
}

impl RequestError {
    /// The status that answers the client.
    pub fn status(self) -> u16 {
        match self {
            Self::Fault(Fault::TooManyHeaders | Fault::HeadTooLarge) => 431,
            Self::Fault(Fault::LineTooLong) => 414,
            Self::Fault(Fault::UnsupportedVersion) => 505,
            Self::Connect => 405,
            _ => 400,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BareCr => "CR without LF",
            Self::BareLf => "LF without CR",
            Self::ControlByte => "control byte in the head",
            Self::MalformedVersion => "malformed start line or HTTP version",
            Self::UnsupportedVersion => "HTTP version other than 1.0 and 1.1",
            Self::FoldedLine => "header line that begins with whitespace",
            Self::EmptyName => "empty header name",
            Self::MalformedName => "forbidden byte in a header name",
            Self::MissingColon => "header without a colon",
            Self::SpaceBeforeColon => "whitespace before a header's colon",
            Self::MalformedContentLength => "malformed Content-Length",
            Self::RepeatedContentLength => "more than one Content-Length",
            Self::LengthAndEncoding => "both Content-Length and Transfer-Encoding",
            Self::TransferEncoding => "unsupported Transfer-Encoding",
            Self::EncodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::TooManyConnectionOptions => "too many Connection options",
            Self::TooManyHeaders => "too many headers",
            Self::HeadTooLarge => "head too large",
            Self::LineTooLong => "request line too long",
        })
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fault(fault) => return fault.fmt(f),
            Self::MalformedMethod => "malformed method",
            Self::Connect => "CONNECT is not supported",
            Self::MalformedTarget => "malformed request target",
            Self::MissingHost => "missing Host",
            Self::RepeatedHost => "more than one Host",
            Self::MalformedHost => "malformed Host",
        })
    }
}

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fault(fault) => return fault.fmt(f),
            Self::MalformedStatus => "malformed status line",
            Self::UnrequestedUpgrade => "101 without a request to upgrade",
        })
    }
}

impl std::error::Error for Fault {}
impl std::error::Error for RequestError {}
impl std::error::Error for BadResponse {}

impl From<Fault> for RequestError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Fault> for BadResponse {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
