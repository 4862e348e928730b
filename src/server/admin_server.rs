//! The admin server's part of the start: its socket and its token.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_local};

use crate::admin::{self, View};
use crate::config::{self, BindAddress};
use crate::net::{self, ListenOptions};

use super::listen_sockets::listen_addresses;
use super::run::{RunError, doing, listening};
use super::running_config::RunningConfig;

/// Its name among the handed-over sockets, its socket for the next process, and its accept loop.
pub(super) type AdminServer = (String, [OwnedFd; 1], JoinHandle<Infallible>);

/// Starts it, unless it is off; that its metrics are kept up doesn't depend on it.
pub(super) fn start_admin(
    address: Option<&BindAddress>,
    running: &mut RunningConfig,
    view: &Arc<View>,
) -> Result<Option<AdminServer>, RunError> {
    drop(spawn_local(admin::upkeep(view.clone())));
    let Some(address) = address else { return Ok(None) };
    let what =
        || format!("can't listen on {address} for the admin server (choose another with --admin, or --admin off)");
    let name = format!("admin {address}");
    let socket = match running.listen_sockets.take_passed(&name) {
        Some(socket) => socket,
        None => listening(bind_admin(address), what)?,
    };
    let kept = doing(socket.try_clone(), what)?;
    let listener = doing(admin::AdminListener::new(socket), what)?;
    tracing::info!(address = listener.local_address(), "admin server listening");
    let serving = spawn_local(admin::serve(listener, view.clone()));
    Ok(Some((name, [kept], serving)))
}

fn bind_admin(address: &BindAddress) -> io::Result<OwnedFd> {
    let options = ListenOptions { nodelay: true, keepalive: None, user_timeout: None };
    let addresses = listen_addresses(address)?;
    let address = addresses.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(net::bind_listen_sockets(address, &options, 1, false)?.swap_remove(0))
}

/// The token that changes by the API need.
pub(super) fn read_token(admin: &config::AdminConfig) -> Result<Option<String>, RunError> {
    let Some(path) = &admin.token_file else { return Ok(None) };
    let text = match path.metadata() {
        // Whoever waits for a pipe serves nobody meanwhile.
        Ok(found) if !found.is_file() => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
        _ => std::fs::read_to_string(path),
    };
    let read = text.and_then(|text| match text.trim() {
        "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        // No request could carry it.
        token if token.chars().any(char::is_control) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it has more than one line, or a control character"))
        }
        token => Ok(Some(token.to_owned())),
    });
    doing(read, || format!("can't read the token of the admin server from {}", path.display()))
}
