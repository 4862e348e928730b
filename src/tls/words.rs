//! What went wrong with a handshake, for a person who has to repair it.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use super::verifier::SelfSigned;

/// Names of a certificate that are listed at most.
const MAX_NAMES: usize = 3;

/// The last second that can be written as a date.
const LAST_SECOND: u64 = 253_402_300_799;

/// What an error of a TLS stream means; `None`: it has nothing to do with TLS.
pub fn words_for(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(fault) => certificate(fault),
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            "the server has no version of TLS in common with lb, which has 1.2 and 1.3".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a certificate of its client (`cert` and `key`)".to_owned()
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the server has nothing for this name (`server_name`)".to_owned()
        }
        Error::AlertReceived(alert) => format!("the server refuses TLS: {}", spaced(&format!("{alert:?}"))),
        Error::InvalidMessage(_) => "the server doesn't speak TLS here".to_owned(),
        other => format!("TLS failed: {other}"),
    })
}

fn certificate(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired => "certificate expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("certificate expired on {}", date(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("certificate is not valid before {}", date(*not_before))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("certificate is for {}, not {}", listed(presented), expected.to_str())
        }
        CertificateError::UnknownIssuer => {
            "certificate isn't signed by a known authority (name it in `ca_file`)".to_owned()
        }
        CertificateError::Revoked => "certificate was revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "certificate is of an authority without a list in `crl_file`".to_owned()
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the revocation list in `crl_file` is over its date; renew it".to_owned()
        }
        CertificateError::Other(other) if other.0.is::<SelfSigned>() => {
            "certificate isn't signed by a known authority (self-signed; name it in `ca_file`, or `verify: off`)"
                .to_owned()
        }
        other => format!("certificate is not valid: {other}"),
    }
}

fn date(at: UnixTime) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(at.as_secs().min(LAST_SECOND));
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

/// The names of a certificate, which rustls gives as `DnsName("a.example")` and `IpAddress(10.0.0.1)`.
fn listed(presented: &[String]) -> String {
    let plain = |name: &String| {
        let name = name.split_once('(').map_or(name.as_str(), |(_, name)| name.trim_end_matches(')'));
        name.trim_matches('"').to_owned()
    };
    let names: Vec<_> = presented.iter().take(MAX_NAMES).map(plain).collect();
    match (names.as_slice(), presented.len().saturating_sub(MAX_NAMES)) {
        ([], _) => "no name".to_owned(),
        (names, 0) => names.join(", "),
        (names, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// `HandshakeFailure` as people write it.
fn spaced(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_alerts_are_shown_as_people_write_them() {
        let names = ["DnsName(\"a.example\")", "IpAddress(10.0.0.1)", "x", "y", "z"].map(str::to_owned);
        assert_eq!(listed(&names[..2]), "a.example, 10.0.0.1");
        assert_eq!(listed(&names), "a.example, 10.0.0.1, x and 2 more");
        assert_eq!(listed(&[]), "no name");
        assert_eq!(spaced("HandshakeFailure"), "handshake failure");
    }
}
