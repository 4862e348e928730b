//! The rules of a listener's `tls:` block. Reads its files.

use crate::config::file::listener::{ListenerSpec, ModeSpec};
use crate::config::file::off::OffOr;
use crate::config::file::tls::{CertificateSpec, MinVersion, TlsServerSpec};
use crate::config::tls::ClientAuthMode;
use crate::tls::{CertificateFiles, ClientAuth, FileRole, ProtocolVersion, Server, ServerSettings};

use super::block::Block;
use super::tls::build_alpn;

/// What a client in mode http may choose: this is what is spoken there.
const HTTP_ALPN: &str = "http/1.1";

/// `None`: off, or a problem was reported.
pub fn build_tls_server(listener: &ListenerSpec, block: &mut Block<'_>) -> Option<Server> {
    let OffOr::On(tls) = &listener.tls else { return None };
    let certificates = build_certificates(tls, block);
    let (alpn, client_auth) = (build_server_alpn(tls, listener.mode, block), build_client_auth(tls, block));
    let settings = ServerSettings {
        certificates: certificates?,
        min_version: match tls.min_version {
            MinVersion::Tls12 => ProtocolVersion::TLSv1_2,
            MinVersion::Tls13 => ProtocolVersion::TLSv1_3,
        },
        alpn,
        client_auth,
        strict_sni: tls.strict_sni,
    };
    let problems = match Server::load(settings) {
        Ok(server) => return Some(server),
        Err(problems) => problems,
    };
    for problem in problems {
        let key = match problem.role {
            FileRole::Certificate(index) if tls.certificates[index].directory.is_some() => {
                format!("certificates[{index}].directory")
            }
            FileRole::Certificate(index) => format!("certificates[{index}].cert"),
            FileRole::Key(index) => format!("certificates[{index}].key"),
            FileRole::ClientCa => "client_ca".to_owned(),
            FileRole::ClientCrl => "client_crl".to_owned(),
        };
        block.problem(&key, problem.to_string());
    }
    None
}

/// `None`: a problem was reported.
fn build_certificates(tls: &TlsServerSpec, block: &mut Block<'_>) -> Option<Vec<CertificateFiles>> {
    if tls.certificates.is_empty() {
        block.problem("certificates", "is empty: add a certificate, such as [{cert: a.pem, key: a.key}]");
        return None;
    }
    let built = tls.certificates.iter().enumerate().map(|(index, spec)| {
        let files = match spec {
            CertificateSpec { cert: Some(cert), key, directory: None } => {
                CertificateFiles::Pair { cert: cert.clone(), key: key.clone() }
            }
            CertificateSpec { cert: None, key: None, directory: Some(directory) } => {
                CertificateFiles::Directory(directory.clone())
            }
            _ => {
                let message = "needs `cert`, and `key` where that is another file; or `directory` alone";
                block.problem(&format!("certificates[{index}]"), message);
                return None;
            }
        };
        Some(files)
    });
    // Each is looked at, also after one that is wrong.
    built.collect::<Vec<_>>().into_iter().collect()
}

fn build_server_alpn(tls: &TlsServerSpec, mode: ModeSpec, block: &mut Block<'_>) -> Vec<Vec<u8>> {
    if mode == ModeSpec::Tcp {
        return build_alpn(&tls.alpn, block);
    }
    if tls.alpn.0.iter().any(|name| name != HTTP_ALPN) {
        block.problem("alpn", format!("can only be {HTTP_ALPN} in mode `http`, which speaks nothing else; remove it"));
    }
    vec![HTTP_ALPN.as_bytes().to_vec()]
}

/// `None`: off, or a problem was reported.
fn build_client_auth(tls: &TlsServerSpec, block: &mut Block<'_>) -> Option<ClientAuth> {
    if tls.client_auth == ClientAuthMode::Off {
        for (key, file) in [("client_ca", &tls.client_ca), ("client_crl", &tls.client_crl)] {
            if file.is_some() {
                block.problem(key, "is not used: write `client_auth: required` or `optional`, or remove it");
            }
        }
        return None;
    }
    let Some(ca) = &tls.client_ca else {
        block.problem("client_auth", "needs a `client_ca`: a file with the authorities of clients' certificates");
        return None;
    };
    let is_required = tls.client_auth == ClientAuthMode::Required;
    Some(ClientAuth { ca: ca.clone(), crl: tls.client_crl.clone(), is_required })
}
