//! The certificates of a server, from files and directories.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::certificate::Certificate;
use super::files::{WrongFile, identity};

/// A directory with more is a mistake, or takes too long to read.
const MAX_CERTIFICATES: usize = 10_000;

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateFiles {
    /// One, with its chain; `key: None`: its private key is in the same file.
    Pair { cert: PathBuf, key: Option<PathBuf> },
    /// Each NAME.pem in it, with its private key there or in NAME.key.
    Directory(PathBuf),
}

/// A certificate that is ready for use.
#[derive(Clone, Debug)]
pub(super) struct LoadedCertificate {
    pub(super) certificate: Certificate,
    /// Its chain, and how it signs.
    pub(super) key: Arc<CertifiedKey>,
}

/// What a file is for; the numbers are places in [`super::ServerSettings::certificates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    Certificate(usize),
    Key(usize),
    ClientCa,
    ClientCrl,
}

/// A file that can't be used.
#[derive(Clone, Debug)]
pub struct FileProblem {
    pub role: FileRole,
    pub(super) file: PathBuf,
    pub(super) reason: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

/// All of them in one line.
pub fn described(problems: &[FileProblem]) -> String {
    let each: Vec<_> = problems.iter().map(FileProblem::to_string).collect();
    each.join("; ")
}

/// Reads them all. Returns those that can be used, and the files that were looked at.
pub(super) fn load_certificates(
    sources: &[CertificateFiles],
    provider: &CryptoProvider,
    problems: &mut Vec<FileProblem>,
) -> (Vec<LoadedCertificate>, Vec<PathBuf>) {
    let (mut certificates, mut files) = (Vec::new(), Vec::new());
    for (index, source) in sources.iter().enumerate() {
        let pairs = match source {
            CertificateFiles::Pair { cert, key } => vec![(cert.clone(), key.clone())],
            CertificateFiles::Directory(directory) => {
                files.push(directory.clone());
                list(directory).unwrap_or_else(|reason| {
                    let (role, file) = (FileRole::Certificate(index), directory.clone());
                    problems.push(FileProblem { role, file, reason });
                    Vec::new()
                })
            }
        };
        for (cert, key) in pairs {
            match load(&cert, key.as_deref(), provider) {
                Ok(certificate) => certificates.push(certificate),
                Err((WrongFile::Key, reason)) if key.is_some() => {
                    let (role, file) = (FileRole::Key(index), key.clone().unwrap_or_default());
                    problems.push(FileProblem { role, file, reason });
                }
                Err((_, reason)) => {
                    let (role, file) = (FileRole::Certificate(index), cert.clone());
                    problems.push(FileProblem { role, file, reason });
                }
            }
            files.push(cert);
            files.extend(key);
        }
    }
    (certificates, files)
}

/// The pairs of certificate and key in a directory, in the order of their names.
fn list(directory: &Path) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    let unreadable = |error| format!("can't be read: {error}");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "pem") && path.is_file() {
            found.push(path);
        }
    }
    match found.len() {
        0 => return Err("has no file NAME.pem; each certificate needs one".to_owned()),
        count if count > MAX_CERTIFICATES => {
            return Err(format!("has {count} certificates; at most {MAX_CERTIFICATES}"));
        }
        _ => {}
    }
    found.sort();
    let with_key = |cert: PathBuf| {
        let key = Some(cert.with_extension("key")).filter(|key| key.is_file());
        (cert, key)
    };
    Ok(found.into_iter().map(with_key).collect())
}

fn load(cert: &Path, key: Option<&Path>, provider: &CryptoProvider) -> Result<LoadedCertificate, (WrongFile, String)> {
    let identity = identity(cert, key)?;
    let certificate = Certificate::parse(&identity.chain[0]).map_err(|reason| (WrongFile::Certificate, reason))?;
    let key = CertifiedKey::from_der(identity.chain, identity.key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            (WrongFile::Key, format!("the key is not that of the certificate {}", certificate.name))
        }
        error => (WrongFile::Key, format!("has a key that can't be used ({error}); take RSA, P-256, P-384 or Ed25519")),
    })?;
    Ok(LoadedCertificate { certificate, key: Arc::new(key) })
}
