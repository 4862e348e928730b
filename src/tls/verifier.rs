//! Whether a server's certificate is good: rustls's own verifier, and what people expect beside it.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

/// Whose certificates are good.
#[derive(Debug, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's.
    Anyone,
    /// Those that these have signed and none of their lists has revoked, and these themselves.
    Roots(Arc<[CertificateDer<'static>]>, Vec<CertificateRevocationListDer<'static>>),
}

#[derive(Debug)]
pub(super) struct Verifier {
    /// `None`: anyone's certificate is good.
    trusted: Option<Trusted>,
    schemes: Vec<SignatureScheme>,
}

#[derive(Debug)]
struct Trusted {
    roots: Arc<[CertificateDer<'static>]>,
    webpki: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    pub(super) fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let Trust::Roots(roots, lists) = trust else { return Ok(Self { trusted: None, schemes }) };
        let mut store = RootCertStore::empty();
        // Systems ship authorities of the last century too, which don't parse.
        let (added, _) = store.add_parsable_certificates(roots.iter().cloned());
        if added == 0 {
            return Err("has no certificate of an authority that can be used".to_owned());
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
        // As openssl does: an old list says nothing of those who were revoked since.
        let webpki = builder.with_crls(lists.iter().cloned()).enforce_revocation_expiration().build();
        let webpki = webpki.map_err(|error| error.to_string())?;
        Ok(Self { trusted: Some(Trusted { roots: roots.clone(), webpki }), schemes })
    }
}

/// What [`CertificateError::Other`] says of a certificate that signs itself and is not trusted.
#[derive(Debug)]
pub(super) struct SelfSigned;

impl fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("self-signed")
    }
}

impl std::error::Error for SelfSigned {}

impl Trusted {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let result = self.webpki.verify_server_cert(certificate, intermediates, name, &[], now);
        match &result {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) if is_self_signed(certificate) => {
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(SelfSigned)))))
            }
            // `openssl req -x509` makes certificates of authorities. One that is trusted by itself may serve as well:
            // its dates were looked at before, its name was not.
            Err(Error::InvalidCertificate(CertificateError::Other(other))) if is_authority(other) => {
                if !self.roots.iter().any(|root| root == certificate) {
                    return Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(SelfSigned)))));
                }
                rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => result,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trusted {
            Some(trusted) => trusted.verify(certificate, intermediates, name, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.trusted {
            Some(trusted) => trusted.webpki.verify_tls12_signature(message, certificate, signature),
            // What signs proves nothing of whom it belongs to.
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.trusted {
            Some(trusted) => trusted.webpki.verify_tls13_signature(message, certificate, signature),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// Whether a certificate is not good because it is an authority's.
pub(super) fn is_authority(error: &OtherError) -> bool {
    matches!(error.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|parsed| parsed.issuer() == parsed.subject())
}
