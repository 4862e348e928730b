//! Which clients are let in: by certificates of these authorities that none of these lists has revoked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::certificate::next_update_of;
use super::files::{certificates, revocation_lists};
use super::server_files::{FileProblem, FileRole};
use super::verifier::is_authority;

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
    verifier: Arc<ClientVerifier>,
}

/// rustls's own verifier, and what people expect beside it.
#[derive(Debug)]
struct ClientVerifier {
    roots: Vec<CertificateDer<'static>>,
    webpki: Arc<dyn ClientCertVerifier>,
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
        // As openssl does: an old list says nothing of those who were revoked since.
        let builder = builder.with_crls(lists.iter().cloned()).enforce_revocation_expiration();
        let builder = if self.is_required { builder } else { builder.allow_unauthenticated() };
        let crl = self.crl.as_deref().unwrap_or(&self.ca);
        let webpki = builder.build().map_err(|error| problem(FileRole::ClientCrl, crl, error.to_string()))?;
        let verifier = Arc::new(ClientVerifier { roots: roots.clone(), webpki });
        Ok(ClientTrust { roots, lists, verifier })
    }
}

impl ClientTrust {
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }

    /// When the first of the revocation lists is over its date, after which its authority's clients are refused.
    pub(super) fn lists_expire(&self) -> Option<SystemTime> {
        self.lists.iter().filter_map(next_update_of).min()
    }

    /// The same for those that judge alike, in another process too; `None`: nobody is asked for a certificate.
    pub(super) fn fingerprint(trust: Option<&Self>) -> [u8; SHA256_OUTPUT_LEN] {
        let mut hash = digest::Context::new(&SHA256);
        if let Some(trust) = trust {
            hash.update(if trust.verifier.client_auth_mandatory() { b"required" } else { b"optional" });
            let (roots, lists) = (trust.roots.iter().map(|it| &**it), trust.lists.iter().map(|it| &**it));
            for der in roots.chain(lists) {
                // DER says its own length.
                hash.update(der);
            }
        }
        let mut fingerprint = [0; SHA256_OUTPUT_LEN];
        fingerprint.copy_from_slice(hash.finish().as_ref());
        fingerprint
    }
}

impl PartialEq for ClientTrust {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots && self.lists == other.lists
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.webpki.verify_client_cert(certificate, intermediates, now) {
            // As `openssl req -x509` makes them. One that is trusted by itself may serve as a client's: its dates were
            // looked at before.
            Err(Error::InvalidCertificate(CertificateError::Other(other))) if is_authority(&other) => {
                if self.roots.iter().any(|root| root == certificate) {
                    Ok(ClientCertVerified::assertion())
                } else {
                    Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
                }
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
