//! The keys of TLS.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::config::tls::ClientAuthMode;

use super::off::{OnOff, off_or_word, or_false, switch};
use super::units::{OneOrMany, TextOrBlock, UNREADABLE, texts_or_blocks};

/// TLS from clients, which the listener ends.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsServerSpec {
    /// Certificates, of which the client's server name chooses one; the first is for clients without a name, or with
    /// one that none is for.
    #[serde(deserialize_with = "texts_or_blocks")]
    #[schemars(with = "Vec<CertificateShape>")]
    pub certificates: Vec<CertificateSpec>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Protocols that clients may choose from, the preferred one first (mode tcp; in mode http it is http/1.1).
    pub alpn: OneOrMany,
    /// Whether clients are asked for a certificate.
    #[serde(deserialize_with = "off_or_word")]
    #[schemars(transform = or_false)]
    pub client_auth: ClientAuthMode,
    /// A file with the authorities of clients' certificates (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// A file with the revocation lists of these authorities (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_crl: Option<PathBuf>,
    /// Whether clients without a server name, or with one that no certificate is for, are refused.
    #[serde(deserialize_with = "switch")]
    pub strict_sni: bool,
}

/// One certificate, or a directory of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateSpec {
    /// A file with the certificate and its chain (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// A file with its private key (PEM); default: in the file of `cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// In place of both: each NAME.pem in it, with its key there or in NAME.key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
}

impl TextOrBlock for CertificateSpec {
    const EXPECTED: &'static str = "a block such as {cert: a.pem, key: a.key} or {directory: /etc/lb/certs}";

    fn from_text(text: &str) -> Option<Self> {
        let cert = (text != UNREADABLE).then(|| PathBuf::from(text));
        Some(Self { cert, ..Self::default() })
    }
}

/// A file, or a block.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it only has a schema: what a `CertificateSpec` is read from")]
enum CertificateShape {
    /// A file with the certificate, its chain and its private key.
    File(String),
    /// With its keys.
    Block(CertificateSpec),
}

/// The oldest version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum MinVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

impl JsonSchema for MinVersion {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MinVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Without quotes it is a number.
        json_schema!({ "enum": ["1.2", "1.3", 1.2, 1.3] })
    }
}

impl<'de> Deserialize<'de> for MinVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Version;
        impl Visitor<'_> for Version {
            type Value = MinVersion;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"1.2\" or \"1.3\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MinVersion, E> {
                match text {
                    "1.2" => Ok(MinVersion::Tls12),
                    "1.3" => Ok(MinVersion::Tls13),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<MinVersion, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Version)
    }
}

/// TLS towards a server.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsClientSpec {
    /// Whether the server's certificate must be good: signed by an authority that is known, not expired, for this name.
    pub verify: OnOff,
    /// A file with the certificates that are trusted (PEM); default: the authorities that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A file with the revocation lists of these authorities (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl_file: Option<PathBuf>,
    /// The name that is asked for and that the certificate must have; default: that of the backend, or its IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A file with this side's certificate and its chain (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// A file with its private key (PEM); default: in the file of `cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Protocols that the server may choose from, the preferred one first.
    #[serde(skip_serializing_if = "is_empty")]
    pub alpn: OneOrMany,
}

fn is_empty(list: &OneOrMany) -> bool {
    list.0.is_empty()
}

impl Default for TlsClientSpec {
    fn default() -> Self {
        Self {
            verify: OnOff(true),
            ca_file: None,
            crl_file: None,
            server_name: None,
            cert: None,
            key: None,
            alpn: OneOrMany::default(),
        }
    }
}
