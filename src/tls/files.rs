//! Certificates and keys in files (PEM), and those of the authorities that the system trusts.

use std::fs;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Who this side is.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// A bundle of all public authorities has a quarter of a megabyte.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// The certificates in a file: at least one.
///
/// # Errors
/// In words, without the file's name.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err("has no certificate (PEM, BEGIN CERTIFICATE)".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("is no valid PEM: {error}")),
    }
}

/// The revocation lists in a file: at least one.
///
/// # Errors
/// In words, without the file's name.
pub fn revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err("has no revocation list (PEM, BEGIN X509 CRL)".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("is no valid PEM: {error}")),
    }
}

/// A certificate with its chain, and its key. The key may be in a file of its own, and is PKCS #8, PKCS #1 or SEC 1.
///
/// # Errors
/// In words: which of the two files, and what is wrong with it. Whether the two fit is not looked at.
pub fn identity(cert: &Path, key: Option<&Path>) -> Result<Identity, (WrongFile, String)> {
    let chain = certificates(cert).map_err(|error| (WrongFile::Certificate, error))?;
    let (file, which) = key.map_or((cert, WrongFile::Certificate), |key| (key, WrongFile::Key));
    let bytes = read(file).map_err(|error| (which, error))?;
    if is_encrypted(&bytes) {
        let remedy = "store it without one (openssl pkey -in OLD -out NEW), readable by nobody else";
        return Err((which, format!("has a private key with a passphrase, which lb can't ask for; {remedy}")));
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let reason = match error {
            pem::Error::NoItemsFound => "has no private key (PEM, BEGIN PRIVATE KEY; without a passphrase)".to_owned(),
            error => format!("is no valid PEM: {error}"),
        };
        (which, reason)
    })?;
    Ok(Identity { chain, key })
}

/// As PKCS #8 has it, or in the headers of RFC 1421.
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |text: &str| pem.windows(text.len()).any(|window| window == text.as_bytes());
    has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED")
}

/// Which file of an identity is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongFile {
    Certificate,
    Key,
}

/// The certificates of the authorities that the system trusts (SSL_CERT_FILE, SSL_CERT_DIR, or where distributions put
/// them).
///
/// # Errors
/// There are none.
pub fn system_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!("the system has no certificates of authorities (package ca-certificates){why}"));
    }
    Ok(found.certs)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let found = fs::metadata(file).map_err(|error| format!("can't be read: {error}"))?;
    if !found.is_file() {
        return Err("is no regular file".to_owned());
    }
    if found.len() > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    fs::read(file).map_err(|error| format!("can't be read: {error}"))
}
