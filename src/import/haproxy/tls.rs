//! TLS of clients (`bind … ssl`) and to servers (`server … ssl`).

use std::path::Path;

use crate::config::ClientAuthMode;
use crate::config::file::off::{OnOff, OnOffOr};
use crate::config::file::pool::PoolSpec;
use crate::config::file::tls::{CertificateSpec, MinVersion, TlsClientSpec, TlsServerSpec};
use crate::config::file::units::OneOrMany;
use crate::import::note::Notes;

use super::server::{Parameters, Server};
use super::tree::{Line, Section};

/// Options that leave out a version of TLS that lb has.
pub const LIMITS: [&str; 8] = [
    "TLSv1.3",
    "no-tlsv12",
    "no-tlsv13",
    "force-tlsv10",
    "force-tlsv11",
    "force-tlsv12",
    "force-tlsv13",
    "ssl-max-ver",
];

/// TLS that a `bind … ssl` ends.
///
/// # Errors
/// It can't be translated.
pub fn of_bind(
    bind: &Line,
    parameters: &Parameters<'_>,
    is_http: bool,
    notes: &mut Notes,
) -> Result<TlsServerSpec, String> {
    let mut spec = TlsServerSpec::default();
    if parameters.has("crt-list") {
        return Err("lb reads no crt-list: name the certificates".to_owned());
    }
    // A parameter of which only the last value is kept elsewhere.
    for (at, _) in bind.words.iter().enumerate().filter(|(_, word)| *word == "crt") {
        let file = bind.word(at + 1);
        if !file.ends_with('/') && Path::new(file).extension().is_none() {
            let why = format!("{} is taken for a file: write a folder with a `/` at its end", file.escape_debug());
            notes.changes(&bind.place, &bind.text(), why);
        }
        spec.certificates.push(match file.ends_with('/') {
            true => CertificateSpec { directory: Some(file.into()), ..CertificateSpec::default() },
            false => CertificateSpec { cert: Some(file.into()), ..CertificateSpec::default() },
        });
    }
    if spec.certificates.is_empty() {
        return Err("it names no certificate".to_owned());
    }
    if parameters.value("ssl-min-ver") == Some("TLSv1.3")
        || parameters.has("force-tlsv13")
        || parameters.has("no-tlsv12")
    {
        spec.min_version = MinVersion::Tls13;
    }
    if let Some(alpn) = parameters.value("alpn").filter(|_| !is_http) {
        spec.alpn = OneOrMany(alpn.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect());
    }
    spec.client_auth = match parameters.value("verify") {
        Some("required") => ClientAuthMode::Required,
        Some("optional") => ClientAuthMode::Optional,
        _ => ClientAuthMode::Off,
    };
    let is_file = |file: &str| !file.is_empty() && !file.starts_with('@');
    if spec.client_auth != ClientAuthMode::Off && !parameters.value("ca-file").is_some_and(is_file) {
        return Err("clients are verified with the authorities of a `ca-file`".to_owned());
    }
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
    servers.iter().for_each(|server| note_names(server, notes));
    let differs = |other: &&Server<'_>| format!("{:?}", towards(&other.parameters)) != format!("{spec:?}");
    if let Some(other) = servers.iter().find(differs) {
        notes.changes(&other.line.place, &other.line.text(), "all servers of a pool have the TLS of the first");
    }
    pool.tls = OnOffOr::On(spec);
    Ok(())
}

/// Notes what a server's names would have meant.
fn note_names(server: &Server<'_>, notes: &mut Notes) {
    let parameters = &server.parameters;
    let (is_verified, sni) = (parameters.value("verify") != Some("none"), parameters.value("sni"));
    let verified = parameters.value("verifyhost");
    let why = match (sni, sni.and_then(fixed)) {
        (Some(_), None) => "lb sends one fixed server name, or the host that the server's address names",
        (Some(_), sent) if is_verified && verified.is_some_and(|name| sent != Some(name)) => {
            "the server name that lb sends is the one that it verifies"
        }
        (None, _) if is_verified && verified.is_none() => {
            "HAProxy verifies the certificate's chain alone, lb its name as well: that of the address, or `verifyhost`"
        }
        _ => return,
    };
    notes.changes(&server.line.place, &server.line.text(), why);
}

/// Only a fixed name: `str(name)`.
fn fixed(sni: &str) -> Option<&str> {
    sni.strip_prefix("str(")?.strip_suffix(')')
}

/// TLS towards a server, as its parameters say.
pub fn towards(parameters: &Parameters<'_>) -> TlsClientSpec {
    let is_verified = parameters.value("verify") != Some("none");
    let value = |name: &str| parameters.value(name).map(str::to_owned);
    let verified = value("verifyhost").filter(|_| is_verified);
    let server_name = verified.or_else(|| fixed(parameters.value("sni")?).map(str::to_owned));
    let ca_file = value("ca-file").filter(|file| is_verified && !file.starts_with('@'));
    TlsClientSpec {
        verify: OnOff(is_verified),
        ca_file: ca_file.map(Into::into),
        crl_file: value("crl-file").filter(|_| is_verified).map(Into::into),
        server_name: server_name.filter(|name| is_name(name)),
        cert: value("crt").map(Into::into),
        key: None,
        alpn: OneOrMany::default(),
    }
}

/// TLS of a check, of which `sni` is a name that it has of its own.
pub fn of_check(parameters: &Parameters<'_>, sni: Option<&str>) -> TlsClientSpec {
    let mut spec = towards(parameters);
    let own = sni.or(parameters.value("check-sni")).filter(|name| is_name(name));
    spec.server_name = own.map(str::to_owned).or(spec.server_name);
    spec
}

fn is_name(name: &str) -> bool {
    crate::tls::ServerName::try_from(name.to_owned()).is_ok()
}

/// Puts the folders of `crt-base` and `ca-base` before the files that are relative to them.
pub fn join_bases(sections: &mut [Section]) {
    let base = |name: &str| {
        let globals = sections.iter().filter(|section| section.kind() == "global");
        let lines = globals.flat_map(|section| &section.lines).filter(|line| line.word(0) == name);
        lines.map(Line::see).last().map(|line| line.word(1).to_owned())
    };
    let bases = [("crt-base", &["crt", "crt-list"][..]), ("ca-base", &["ca-file", "ca-verify-file", "crl-file"])];
    for (base, keywords) in bases.map(|(name, keywords)| (base(name), keywords)) {
        let Some(base) = base else { continue };
        for line in sections.iter_mut().flat_map(|section| &mut section.lines) {
            if !matches!(line.word(0), "bind" | "server" | "server-template" | "default-server") {
                continue;
            }
            for at in 1..line.words.len() {
                let file = &line.words[at];
                if keywords.contains(&line.word(at - 1)) && !file.starts_with(['/', '@']) && !file.is_empty() {
                    line.words[at] = format!("{}/{file}", base.trim_end_matches('/'));
                }
            }
        }
    }
}
