//! TLS of clients and to backends. Both are left out until lb.yaml has keys for them: what switches them on is here.

use crate::config::file::pool::PoolSpec;
use crate::import::note::Notes;

use super::listen::Listening;
use super::tree::{Directive, Scope};

/// Whether the addresses with `ssl` can be translated. What can't is noted.
pub fn of_listener(server: &Directive, scope: &Scope<'_>, listening: &Listening<'_>, notes: &mut Notes) -> bool {
    let listens = scope.all("listen");
    let place =
        listens.iter().find(|listen| listen.args.iter().any(|arg| arg == "ssl")).map_or(server, |listen| *listen);
    let why = format!("{} isn't served: lb doesn't end TLS of clients yet", listening.bind.join(", "));
    notes.changes(&place.place, &place.text(), why);
    for name in ["ssl_certificate", "ssl_certificate_key", "ssl_protocols"] {
        drop(scope.all(name));
    }
    false
}

/// Sets TLS towards the backends of a pool.
///
/// # Errors
/// It can't be translated.
pub fn to_backends(_: &mut PoolSpec, host: &str, _: &Scope<'_>, _: &mut Notes) -> Result<(), String> {
    Err(format!("lb speaks no TLS to backends yet, as {host} wants it"))
}
