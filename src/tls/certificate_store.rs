//! Which certificate a client gets: by the name that it asks for, and by what it can verify.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::server_files::LoadedCertificate;

/// Certificates for one name, of several kinds of key perhaps, the cheapest to sign with first.
type Candidates = Vec<Arc<CertifiedKey>>;

#[derive(Debug)]
pub(super) struct CertificateStore {
    /// By name in lower case; a wildcard is `*.` and a name.
    by_name: HashMap<String, Candidates>,
    /// For clients whose name is not known; empty: these are refused.
    fallback: Candidates,
}

impl CertificateStore {
    /// Of the first of `certificates` is the fallback, unless `strict`.
    pub(super) fn new(certificates: &[LoadedCertificate], strict: bool) -> Self {
        let mut by_name: HashMap<String, Candidates> = HashMap::new();
        for LoadedCertificate { certificate, key } in certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(key.clone());
            }
        }
        for candidates in by_name.values_mut() {
            // RSA signs thirty times as slowly. The order of the settings decides among the others.
            candidates.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        }
        let fallback = match certificates.first() {
            Some(first) if !strict => {
                let same_name = first.certificate.names.first().and_then(|name| by_name.get(name));
                same_name.cloned().unwrap_or_else(|| vec![first.key.clone()])
            }
            _ => Vec::new(),
        };
        Self { by_name, fallback }
    }

    fn find(&self, name: &str) -> Option<&Candidates> {
        let name = name.to_ascii_lowercase();
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        self.by_name.get(&name).or_else(wildcard)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let candidates = name.and_then(|name| self.find(name)).unwrap_or(&self.fallback);
        let is_known = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // Where the client can verify none, rustls says so to it.
        candidates.iter().find(is_known).or(candidates.first())
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}
