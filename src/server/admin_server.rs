//! The admin server's part of the start: its socket and its token.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_local};

use crate::admin::{self, Exporter, View};
use crate::config::{AdminConfig, BindAddress};
use crate::net::{self, TcpOptions};

use super::bind_addresses::{addresses_of, bindable};
use super::error::RunError;
use super::listen_sockets::{ListenSockets, SharedSockets};

/// The bits of a file's mode that let its group and others read or write it (inode(7)).
const OF_OTHERS: u32 = 0o066;

/// A running admin server.
#[derive(Default)]
pub(super) struct AdminServer(Vec<AdminAddress>);

/// One of the addresses that it listens on.
struct AdminAddress {
    /// The name of its socket among those that an upgrade passes on.
    name: String,
    /// A duplicate for the new process.
    socket: SharedSockets,
    serving: JoinHandle<Infallible>,
}

impl AdminServer {
    /// Its listening sockets, for the new process.
    pub(super) fn named_sockets(&self) -> impl Iterator<Item = (String, SharedSockets)> {
        self.0.iter().map(|address| (address.name.clone(), address.socket.clone()))
    }

    /// Accepts no more; requests under way are answered.
    pub(super) fn stop(&mut self) {
        self.0.drain(..).for_each(|address| address.serving.abort());
    }
}

/// Starts it, on the addresses that are not off.
pub(super) async fn start_admin(
    config: &AdminConfig,
    listen_sockets: &mut ListenSockets,
    view: &Arc<View>,
    exporter: Exporter,
) -> Result<AdminServer, RunError> {
    let exporter = Arc::new(exporter);
    let mut server = AdminServer::default();
    for (key, address) in config.addresses() {
        server.0.push(start_address(key, address, listen_sockets, view, exporter.clone()).await?);
    }
    Ok(server)
}

async fn start_address(
    key: &'static str,
    address: &BindAddress,
    listen_sockets: &mut ListenSockets,
    view: &Arc<View>,
    exporter: Arc<Exporter>,
) -> Result<AdminAddress, RunError> {
    let failed = |source| RunError::AdminListen { address: address.to_string(), key, source };
    let name = format!("admin {address}");
    let socket = match listen_sockets.take_passed(&name) {
        Some(socket) => socket,
        None => bind_admin(address, listen_sockets).await.map_err(failed)?,
    };
    listen_sockets.set_admin(&socket)?;
    let duplicate = Arc::new(vec![socket.try_clone().map_err(failed)?]);
    let listener = admin::AdminListener::new(socket).map_err(failed)?;
    let shown = if address.is_unix() { address.to_string() } else { listener.local_address() };
    tracing::info!(address = shown, "admin server listening");
    let serving = spawn_local(admin::serve(listener, view.clone(), exporter));
    Ok(AdminAddress { name, socket: duplicate, serving })
}

async fn bind_admin(address: &BindAddress, listen_sockets: &ListenSockets) -> io::Result<OwnedFd> {
    let options = TcpOptions { nodelay: true, keepalive: None, user_timeout: None };
    let addresses = bindable(addresses_of(address).await?, |address| listen_sockets.is_ours(address))?;
    Ok(net::bind_listen_sockets(&addresses[0], &options, 1)?.swap_remove(0))
}

/// The token that changes by the API need; `None`: they need none.
pub(super) fn read_token(admin: &AdminConfig) -> Result<Option<String>, RunError> {
    let Some(file) = &admin.token_file else { return Ok(None) };
    let token = match file.metadata() {
        // Reading from a pipe would block the main thread until somebody writes.
        Ok(found) if !found.is_file() => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
        found => {
            if found.is_ok_and(|found| found.mode() & OF_OTHERS != 0) {
                let file = file.display().to_string();
                tracing::warn!(file, "others than its owner can read or change the admin server's token: chmod 600");
            }
            admin::read_token(file)
        }
    };
    token.map(Some).map_err(|source| RunError::AdminToken { file: file.clone(), source })
}
