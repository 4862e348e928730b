//! TLS of clients (`listen … ssl`) and to backends (`proxy_pass https://`, `proxy_ssl on`).

use crate::config::ClientAuthMode;
use crate::config::file::off::{OffOr, OnOff, OnOffOr};
use crate::config::file::pool::PoolSpec;
use crate::config::file::tls::{CertificateSpec, MinVersion, TlsClientSpec, TlsServerSpec};
use crate::config::file::units::OneOrMany;
use crate::import::note::Notes;

use super::tree::{Directive, Scope};

/// TLS that the addresses with `ssl` of a server end; `Off` where that can't be translated, which is noted.
pub fn of_clients(server: &Directive, scope: &Scope<'_>, notes: &mut Notes) -> OffOr<TlsServerSpec> {
    match server_spec(scope, notes) {
        Ok(spec) => OffOr::On(spec),
        Err(why) => {
            let listens = scope.all("listen");
            let has_tls = |listen: &&&Directive| listen.args.iter().any(|arg| arg == "ssl");
            let place = listens.iter().find(has_tls).map_or(server, |listen| *listen);
            notes.changes(&place.place, &place.text(), format!("it isn't served: {why}"));
            OffOr::Off
        }
    }
}

fn server_spec(scope: &Scope<'_>, notes: &mut Notes) -> Result<TlsServerSpec, String> {
    let (certificates, keys) = (scope.all("ssl_certificate"), scope.all("ssl_certificate_key"));
    if certificates.is_empty() || certificates.len() != keys.len() {
        return Err("it names no certificate and its key".to_owned());
    }
    let mut spec = TlsServerSpec::default();
    for (certificate, key) in certificates.iter().zip(&keys) {
        if certificate.arg(0).contains(['$', ':']) || key.arg(0).contains(['$', ':']) {
            return Err("its certificate depends on each client, or is in no file".to_owned());
        }
        let (cert, key) = (Some(certificate.arg(0).into()), Some(key.arg(0).into()));
        spec.certificates.push(CertificateSpec { cert, key, ..CertificateSpec::default() });
    }
    if let Some(protocols) = scope.one("ssl_protocols") {
        let has = |version: &str| protocols.args.iter().any(|arg| arg == version);
        if !has("TLSv1.2") && has("TLSv1.3") {
            spec.min_version = MinVersion::Tls13;
        }
        if has("SSLv3") || has("TLSv1") || has("TLSv1.1") {
            notes.changes(&protocols.place, &protocols.text(), "clients of TLS 1.1 and older are refused");
        }
    }
    spec.client_auth = match scope.word("ssl_verify_client") {
        "on" => ClientAuthMode::Required,
        "optional" => ClientAuthMode::Optional,
        "" | "off" => ClientAuthMode::Off,
        other => return Err(format!("lb has no ssl_verify_client {other}")),
    };
    if spec.client_auth != ClientAuthMode::Off {
        let authorities = scope.one("ssl_client_certificate").or_else(|| scope.one("ssl_trusted_certificate"));
        let file = authorities.ok_or("it names no authority of client certificates (ssl_client_certificate)")?;
        spec.client_ca = Some(file.arg(0).into());
        spec.client_crl = scope.one("ssl_crl").map(|file| file.arg(0).into());
    }
    if let Some(alpn) = scope.one("ssl_alpn") {
        spec.alpn = OneOrMany(alpn.args.clone());
    }
    Ok(spec)
}

/// Sets TLS towards the backends of a pool; nginx verifies no certificate unless it is told to.
pub fn to_backends(pool: &mut PoolSpec, host: &str, scope: &Scope<'_>, notes: &mut Notes) {
    let file = |name: &str| scope.one(name).map(|directive| directive.arg(0).into());
    let is_verified = scope.word("proxy_ssl_verify") == "on";
    let named_by = scope.one("proxy_ssl_name");
    let is_named = is_verified || scope.word("proxy_ssl_server_name") == "on";
    let name = named_by.map_or(host, |name| name.arg(0)).split(':').next().filter(|_| is_named).map(str::to_owned);
    let is_name = |name: &String| crate::tls::ServerName::try_from(name.clone()).is_ok();
    if let Some(directive) = named_by.filter(|_| name.as_ref().is_some_and(|name| !is_name(name))) {
        let why = "lb asks for one name, the same for each client: `tls.server_name`, else the backend's own";
        notes.changes(&directive.place, &directive.text(), why);
    }
    pool.tls = OnOffOr::On(TlsClientSpec {
        verify: OnOff(is_verified),
        ca_file: file("proxy_ssl_trusted_certificate").filter(|_| is_verified),
        crl_file: file("proxy_ssl_crl").filter(|_| is_verified),
        server_name: name.filter(is_name),
        cert: file("proxy_ssl_certificate"),
        key: file("proxy_ssl_certificate_key"),
        alpn: OneOrMany::default(),
    });
}
