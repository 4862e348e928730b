//! The rules of a `tls:` block towards servers. Reads its files.

use crate::config::file::off::OnOffOr;
use crate::config::file::tls::TlsClientSpec;
use crate::config::file::units::OneOrMany;
use crate::config::tls::TlsTo;
use crate::tls::{
    Client, ClientSettings, Identity, ServerName, Sessions, Trust, WrongFile, certificates, identity, revocation_lists,
    system_roots,
};

use super::block::Block;

/// Its length is one byte of the extension.
const MAX_ALPN_BYTES: usize = 255;

/// `None`: off, or a problem was reported.
pub fn build_tls(tls: &OnOffOr<TlsClientSpec>, sessions: Sessions, block: &mut Block<'_>) -> Option<TlsTo> {
    let OnOffOr::On(tls) = tls else { return None };
    let server_name = tls.server_name.as_ref().and_then(|name| build_name(name, block));
    let trust = build_trust(tls, block);
    let identity = build_identity(tls, block);
    let alpn = build_alpn(&tls.alpn, block);
    let client = Client::new(ClientSettings { trust: trust?, identity: identity?, alpn, sessions });
    let client = client.map_err(|reason| block.problem(if tls.cert.is_some() { "key" } else { "ca_file" }, reason));
    Some(TlsTo { client: client.ok()?, server_name })
}

/// A list of protocols, in an extension of the handshake (RFC 7301, 3.1).
pub fn build_alpn(alpn: &OneOrMany, block: &mut Block<'_>) -> Vec<Vec<u8>> {
    for (index, name) in alpn.0.iter().enumerate() {
        if name.is_empty() || name.len() > MAX_ALPN_BYTES {
            block.problem(&format!("alpn[{index}]"), "must be the name of a protocol, such as h2 or http/1.1");
        }
    }
    alpn.0.iter().map(|name| name.clone().into_bytes()).collect()
}

fn build_name(name: &str, block: &mut Block<'_>) -> Option<ServerName<'static>> {
    let parsed = ServerName::try_from(name.to_owned());
    if parsed.is_err() {
        block.problem("server_name", format!("`{name}` is not a host name or an IP address"));
    }
    parsed.ok()
}

fn build_trust(tls: &TlsClientSpec, block: &mut Block<'_>) -> Option<Trust> {
    if !tls.verify.0 {
        let unused = [("ca_file", &tls.ca_file), ("crl_file", &tls.crl_file)].into_iter().find(|(_, it)| it.is_some());
        let Some((key, _)) = unused else { return Some(Trust::Anyone) };
        block.problem(key, "is not used with `verify: off`; remove one of the two");
        return None;
    }
    let (key, roots) = match &tls.ca_file {
        Some(file) => ("ca_file", certificates(file).map_err(|reason| format!("{}: {reason}", file.display()))),
        None => ("verify", system_roots().map_err(|reason| format!("{reason}; name a `ca_file`, or write off"))),
    };
    let roots = roots.map_err(|reason| block.problem(key, reason)).ok();
    let lists = match &tls.crl_file {
        Some(file) => {
            let lists = revocation_lists(file).map_err(|reason| format!("{}: {reason}", file.display()));
            lists.map_err(|reason| block.problem("crl_file", reason)).ok()?
        }
        None => Vec::new(),
    };
    Some(Trust::Roots(roots?.into(), lists))
}

/// `None`: a problem was reported.
fn build_identity(tls: &TlsClientSpec, block: &mut Block<'_>) -> Option<Option<Identity>> {
    let Some(cert) = &tls.cert else {
        if tls.key.is_some() {
            block.problem("key", "needs a `cert`");
        }
        return Some(None);
    };
    match identity(cert, tls.key.as_deref()) {
        Ok(identity) => Some(Some(identity)),
        Err((wrong, reason)) => {
            let (key, file) = match (wrong, &tls.key) {
                (WrongFile::Key, Some(file)) => ("key", file),
                _ => ("cert", cert),
            };
            block.problem(key, format!("{}: {reason}", file.display()));
            None
        }
    }
}
