//! TLS of clients (`bind … ssl`) and to servers (`server … ssl`).

use crate::config::ClientAuthMode;
use crate::config::file::off::{OnOff, OnOffOr};
use crate::config::file::pool::PoolSpec;
use crate::config::file::tls::{CertificateSpec, MinVersion, TlsClientSpec, TlsServerSpec};
use crate::config::file::units::OneOrMany;
use crate::import::note::Notes;

use super::server::{Parameters, Server};
use super::tree::Line;

/// TLS that a `bind … ssl` ends.
///
/// # Errors
/// It can't be translated.
pub fn of_bind(bind: &Line, parameters: &Parameters<'_>, is_http: bool) -> Result<TlsServerSpec, String> {
    let mut spec = TlsServerSpec::default();
    if parameters.has("crt-list") {
        return Err("lb reads no crt-list: name the certificates".to_owned());
    }
    // A parameter of which only the last value is kept elsewhere.
    for (at, _) in bind.words.iter().enumerate().filter(|(_, word)| *word == "crt") {
        let file = bind.word(at + 1);
        spec.certificates.push(match file.ends_with('/') {
            true => CertificateSpec { directory: Some(file.into()), ..CertificateSpec::default() },
            false => CertificateSpec { cert: Some(file.into()), ..CertificateSpec::default() },
        });
    }
    if spec.certificates.is_empty() {
        return Err("it names no certificate".to_owned());
    }
    if parameters.value("ssl-min-ver") == Some("TLSv1.3") || parameters.has("force-tlsv13") {
        spec.min_version = MinVersion::Tls13;
    }
    if let Some(alpn) = parameters.value("alpn").filter(|_| !is_http) {
        spec.alpn = OneOrMany(alpn.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect());
    }
    spec.client_auth = match (parameters.value("verify"), parameters.value("ca-file")) {
        (Some("required"), Some(_)) => ClientAuthMode::Required,
        (Some("optional"), Some(_)) => ClientAuthMode::Optional,
        _ => ClientAuthMode::Off,
    };
    if spec.client_auth != ClientAuthMode::Off {
        spec.client_ca = parameters.value("ca-file").map(Into::into);
        spec.client_crl = parameters.value("crl-file").map(Into::into);
    }
    spec.strict_sni = parameters.has("strict-sni");
    Ok(spec)
}

/// Sets TLS towards the backends of a pool, if its servers have it.
///
/// # Errors
/// Some have it, and some don't.
pub fn to_backends(pool: &mut PoolSpec, servers: &[Server<'_>], notes: &mut Notes) -> Result<(), String> {
    let has_tls = |server: &&Server<'_>| server.parameters.has("ssl");
    let Some(first) = servers.iter().find(has_tls) else { return Ok(()) };
    if let Some(other) = servers.iter().find(|server| !has_tls(server)) {
        return Err(format!("line {} wants TLS and line {} doesn't", first.line.place.line, other.line.place.line));
    }
    let spec = towards(&first.parameters);
    if let Some(other) = servers.iter().find(|other| format!("{:?}", towards(&other.parameters)) != format!("{spec:?}"))
    {
        notes.changes(&other.line.place, &other.line.text(), "all servers of a pool have the TLS of the first");
    }
    pool.tls = OnOffOr::On(spec);
    Ok(())
}

/// TLS towards a server, as its parameters say.
pub fn towards(parameters: &Parameters<'_>) -> TlsClientSpec {
    let is_verified = parameters.value("verify") != Some("none");
    let value = |name: &str| parameters.value(name).map(str::to_owned);
    // Only a fixed name: `str(name)`.
    let fixed = |text: &str| text.strip_prefix("str(")?.strip_suffix(')').map(str::to_owned);
    let server_name = value("check-sni").or_else(|| value("verifyhost")).or_else(|| fixed(parameters.value("sni")?));
    let ca_file = value("ca-file").filter(|file| is_verified && !file.starts_with('@'));
    TlsClientSpec {
        verify: OnOff(is_verified),
        ca_file: ca_file.map(Into::into),
        crl_file: value("crl-file").filter(|_| is_verified).map(Into::into),
        server_name: server_name.filter(|name| crate::tls::ServerName::try_from(name.clone()).is_ok()),
        cert: value("crt").map(Into::into),
        key: None,
        alpn: OneOrMany::default(),
    }
}
