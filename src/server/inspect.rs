//! `lb check --deep`: what a start would meet on this machine, looked at without starting anything. Files are opened
//! and addresses bound for a moment; what a running balancer uses is left as it is.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, access};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

use crate::admin;
use crate::backends::look_up;
use crate::config::{BackendAddress, BindAddress, Config, ListenerConfig};
use crate::net::{self, ListenAddress};
use crate::telemetry::{LogTarget, SyslogReceiver, rfc3339};
use crate::tls::Certificate;

use super::bind_addresses::{addresses_of, bindable};
use super::off_thread::off_thread;

/// A name that nobody answers for is given up after this time. All are asked for at once.
const LONGEST_LOOKUP: Duration = Duration::from_secs(5);
/// The files of a network file system whose server is gone may keep a reader for ever.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What would be in a start's way, each with the path of its key.
pub type Finding = (String, String);

/// Looks at files, addresses, names and certificates; for some seconds at most.
///
/// # Errors
/// No runtime can be built.
pub fn inspect(config: &Config) -> io::Result<Vec<Finding>> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let found = runtime.block_on(look_at_all(config));
    runtime.shutdown_background();
    Ok(found)
}

async fn look_at_all(config: &Config) -> Vec<Finding> {
    let of_files = config.clone();
    let files = off_thread("lb-look", LONGEST_LOOK, move || look_at_files(&of_files));
    let (files, addresses, names) = tokio::join!(files, look_at_addresses(config), look_at_names(config));
    let files = files.unwrap_or_else(|error| vec![(String::new(), format!("files can't be looked at: {error}"))]);
    files.into_iter().chain(addresses).chain(names).chain(look_at_certificates(config)).collect()
}

fn look_at_files(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(file) = &config.admin.token_file
        && let Err(error) = admin::read_token(file)
    {
        let remedy = "write the token into it, readable by lb's user";
        found.push(("admin.token_file".to_owned(), format!("{} can't be read: {error}; {remedy}", file.display())));
    }
    let logs = [("log.access", config.log.access.as_ref()), ("log.program", Some(&config.log.program))];
    for (key, target) in logs {
        if let Some(Err(why)) = target.map(look_at_log) {
            found.push((key.to_owned(), why));
        }
    }
    found
}

fn look_at_log(target: &LogTarget) -> Result<(), String> {
    match target {
        LogTarget::Stdout | LogTarget::Stderr => Ok(()),
        LogTarget::File(path) => look_at_log_file(path),
        LogTarget::Syslog(target) => match &target.receiver {
            SyslogReceiver::Unix(path) => {
                let connected = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.connect(path));
                connected.map_err(|error| {
                    format!("nobody receives syslog at {}: {error}; is the syslog service running?", path.display())
                })
            }
            SyslogReceiver::Udp { host, port } => {
                let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), *port));
                addresses.map(|_| ()).map_err(|error| format!("{host} can't be looked up: {error}"))
            }
        },
    }
}

/// Makes no file: where there is none, its folder must take one.
fn look_at_log_file(path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if fs::symlink_metadata(path).is_ok() {
        let opened = OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        return match opened {
            // A named pipe that nobody reads yet.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            Err(error) => Err(format!("{} can't be written: {error}; lb's user must be able to", path.display())),
            Ok(_) => Ok(()),
        };
    }
    access(folder, Access::EXISTS | Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        let error = io::Error::from(error);
        let remedy = "make that folder, writable by lb's user";
        format!("{} can't be made in {}: {error}; {remedy}", path.display(), folder.display())
    })
}

async fn look_at_addresses(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let of_listeners = config.listeners.iter().flat_map(|listener| {
        let indexed = listener.bind.iter().enumerate();
        indexed.map(move |(index, address)| {
            let index = if listener.bind.len() == 1 { String::new() } else { format!("[{index}]") };
            (format!("listeners.{}.bind{index}", listener.name), address)
        })
    });
    let of_admin = config.admin.addresses().map(|(key, address)| (key.to_owned(), address));
    for (key, address) in of_listeners.chain(of_admin) {
        if let Err(error) = can_be_bound(address).await {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => "; if that is lb itself, `lb reload --dry-run` asks it",
                io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
                io::ErrorKind::AddrNotAvailable => "; it is not an address of this machine",
                _ => "",
            };
            found.push((key, format!("{address} can't be listened on: {error}{remedy}")));
        }
    }
    found
}

async fn can_be_bound(address: &BindAddress) -> io::Result<()> {
    match address {
        // It comes with the start.
        BindAddress::Inherited(_) => Ok(()),
        BindAddress::Address(ListenAddress::Unix(path)) => {
            net::check_unix_path_free(path)?;
            let folder = path.parent().unwrap_or(path);
            Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        _ => bindable(addresses_of(address).await?, |_| false).map(drop),
    }
}

async fn look_at_names(config: &Config) -> Vec<Finding> {
    let mut lookups = JoinSet::new();
    for pool in &config.pools {
        let names = pool.backends.iter().enumerate();
        for (index, backend) in names.filter(|(_, it)| !matches!(it.address, BackendAddress::Address(_))) {
            let key = format!("pools.{}.backends[{index}]", pool.name);
            let (address, resolve) = (backend.address.clone(), pool.resolve.clone());
            lookups.spawn_local(async move {
                let answer = tokio::time::timeout(LONGEST_LOOKUP, look_up(&address, &resolve)).await;
                let why = match answer {
                    Ok(answer) => answer.err()?,
                    Err(_) => format!("no answer within {LONGEST_LOOKUP:?}"),
                };
                Some((key, format!("{address} can't be resolved: {why}")))
            });
        }
    }
    let mut found: Vec<Finding> = lookups.join_all().await.into_iter().flatten().collect();
    found.sort();
    found
}

fn look_at_certificates(config: &Config) -> Vec<Finding> {
    let now = SystemTime::now();
    let wrong = |it: &Certificate| {
        let (name, begins, expires) = (&it.name, rfc3339(it.begins), rfc3339(it.expires));
        if it.expires <= now {
            Some(format!("the certificate {name} has expired on {expires}; renew it"))
        } else if it.begins > now {
            Some(format!("the certificate {name} is good only from {begins} on; is this machine's clock right?"))
        } else {
            None
        }
    };
    let of_listener = |listener: &ListenerConfig| {
        let loaded = listener.tls.as_ref()?.loaded();
        let all: Vec<String> = loaded.certificates().filter_map(wrong).collect();
        (!all.is_empty()).then(|| (format!("listeners.{}.tls.certificates", listener.name), all.join("; ")))
    };
    config.listeners.iter().filter_map(of_listener).collect()
}
