//! What a certificate says: for whom it is, and until when.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;
use x509_cert::der::asn1::Any;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// The id of a common name (RFC 4519, 2.3).
const COMMON_NAME: &str = "2.5.4.3";

/// Certificates of 90 days are renewed when they have 30 left.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// For people and metrics: the first of its names, or its subject.
    pub name: String,
    /// Host names in lower case, perhaps `*.` and a name.
    pub names: Vec<String>,
    /// When it begins to be good.
    pub begins: SystemTime,
    pub expires: SystemTime,
}

impl Certificate {
    /// # Errors
    /// In words: it is none.
    pub(super) fn parse(der: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed = x509_cert::Certificate::from_der(der)
            .map_err(|error| format!("has a certificate that can't be read: {error}"))?;
        let body = parsed.tbs_certificate();
        let common_name = common_name_of(body.subject());
        let mut names = match body.get_extension::<SubjectAltName>() {
            Ok(Some((_, SubjectAltName(names)))) => names.into_iter().filter_map(host_name).collect(),
            _ => Vec::new(),
        };
        // As openssl's clients did before 2017, and those who make certificates by hand still do.
        if names.is_empty() {
            names.extend(common_name.clone().map(|name| name.to_ascii_lowercase()));
        }
        let name = names.first().cloned().unwrap_or_else(|| body.subject().to_string());
        let begins = SystemTime::UNIX_EPOCH + body.validity().not_before.to_unix_duration();
        let expires = SystemTime::UNIX_EPOCH + body.validity().not_after.to_unix_duration();
        Ok(Self { name, names, begins, expires })
    }

    /// Whether it has expired, or is about to: renewal takes place by then (certbot's does).
    pub fn expires_soon(&self, now: SystemTime) -> bool {
        self.expires < now + SOON
    }
}

/// Until when a revocation list is good; `None`: it doesn't say.
pub(super) fn next_update_of(list: &CertificateRevocationListDer<'_>) -> Option<SystemTime> {
    let parsed: CertificateList = CertificateList::from_der(list).ok()?;
    Some(SystemTime::UNIX_EPOCH + parsed.tbs_cert_list.next_update?.to_unix_duration())
}

/// Whose certificate it is: the subject as text (RFC 4514), and its common name.
pub(super) fn subject_of(der: &CertificateDer<'_>) -> Option<(String, Option<String>)> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    let subject = parsed.tbs_certificate().subject();
    Some((subject.to_string(), common_name_of(subject)))
}

fn common_name_of(subject: &Name) -> Option<String> {
    let is_common_name = |oid: &str| oid == COMMON_NAME;
    let attribute = subject.iter().find(|attribute| is_common_name(&attribute.oid.to_string()))?;
    text(&attribute.value)
}

fn text(value: &Any) -> Option<String> {
    // All its types of text but two, which nobody uses, are ASCII or UTF-8.
    std::str::from_utf8(value.value()).ok().map(str::to_owned)
}

fn host_name(name: GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    }
}
