//! Which clients are let in: by certificates of these authorities that none of these lists has revoked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::files::{certificates, revocation_lists};
use super::server_files::{FileProblem, FileRole};

/// How clients are asked for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// The authorities of good certificates.
    pub ca: PathBuf,
    /// Their revocation lists; `None`: nothing is revoked.
    pub crl: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub is_required: bool,
}

/// The same with what the files held. Two are equal if they judge alike.
#[derive(Clone, Debug)]
pub(super) struct ClientTrust {
    roots: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientAuth {
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.ca.clone()).chain(self.crl.clone())
    }

    pub(super) fn load(&self, provider: &Arc<CryptoProvider>) -> Result<ClientTrust, FileProblem> {
        let problem = |role, file: &Path, reason| FileProblem { role, file: file.to_owned(), reason };
        let ca_problem = |reason: String| problem(FileRole::ClientCa, &self.ca, reason);
        let roots = certificates(&self.ca).map_err(ca_problem)?;
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|error| ca_problem(format!("has no usable certificate: {error}")))?;
        }
        let lists = match &self.crl {
            Some(file) => revocation_lists(file).map_err(|reason| problem(FileRole::ClientCrl, file, reason))?,
            None => Vec::new(),
        };
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone());
        let builder = builder.with_crls(lists.iter().cloned());
        let builder = if self.is_required { builder } else { builder.allow_unauthenticated() };
        let crl = self.crl.as_deref().unwrap_or(&self.ca);
        let verifier = builder.build().map_err(|error| problem(FileRole::ClientCrl, crl, error.to_string()))?;
        Ok(ClientTrust { roots, lists, verifier })
    }
}

impl ClientTrust {
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }
}

impl PartialEq for ClientTrust {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots && self.lists == other.lists
    }
}
