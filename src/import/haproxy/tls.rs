//! TLS of clients and to backends. Both are left out until lb.yaml has keys for them: what switches them on is here.

use crate::config::file::off::OnOff;
use crate::config::file::pool::PoolSpec;
use crate::config::file::tls::TlsClientSpec;
use crate::import::note::Notes;

use super::server::{Parameters, Server};
use super::tree::Line;

/// Whether a `bind … ssl` can be translated. What can't is noted.
pub fn of_bind(bind: &Line, notes: &mut Notes) -> bool {
    notes.changes(&bind.place, &bind.text(), "it isn't served: lb doesn't end TLS of clients yet");
    false
}

/// Sets TLS towards the backends of a pool.
///
/// # Errors
/// It can't be translated.
pub fn to_backends(_: &mut PoolSpec, servers: &[Server<'_>], _: &mut Notes) -> Result<(), String> {
    match servers.iter().find(|server| server.parameters.has("ssl") && !server.parameters.has("no-ssl")) {
        Some(server) => Err(format!("lb speaks no TLS to backends yet, as line {} wants it", server.line.place.line)),
        None => Ok(()),
    }
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
        server_name: server_name.filter(|name| crate::tls::ServerName::try_from(name.clone()).is_ok()),
        cert: value("crt").map(Into::into),
        key: None,
    }
}
