//! A DNS server with records that change: dnsmasq, for the domain `test`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::files::Folder;
use super::packages::required;
use super::ports::free_port;
use super::{process, wait_until};

/// Dropping it ends it.
pub struct Dns {
    child: Child,
    address: SocketAddr,
    hosts: PathBuf,
    _folder: Folder,
}

impl Dns {
    /// Answers with these (name, address) records, whose TTL is 0; with NXDOMAIN for all other names of `test`.
    #[track_caller]
    pub fn with_hosts(records: &[(&str, &str)]) -> Self {
        Self::with_services(records, &[])
    }

    /// The same and SRV records as dnsmasq has them: `_service._tcp.name,target,port,priority,weight`.
    #[track_caller]
    pub fn with_services(records: &[(&str, &str)], services: &[String]) -> Self {
        Self::start(free_port(), records, services, &[])
    }

    /// The same at this address.
    #[track_caller]
    pub fn serving_at(address: SocketAddr, records: &[(&str, &str)], services: &[String]) -> Self {
        Self::start(address, records, services, &[])
    }

    /// The same as [`Dns::with_hosts`], but names of the domain `silent` are asked of `upstream`.
    #[track_caller]
    pub fn with_upstream_for_silent(records: &[(&str, &str)], upstream: SocketAddr) -> Self {
        let server = format!("--server=/silent/{}#{}", upstream.ip(), upstream.port());
        Self::start(free_port(), records, &[], &[server])
    }

    #[track_caller]
    fn start(address: SocketAddr, records: &[(&str, &str)], services: &[String], further: &[String]) -> Self {
        let folder = Folder::new();
        let hosts = folder.write("hosts", text_of(records));
        let mut command = Command::new(required("dnsmasq"));
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
        command.args(["--user=root", "--bind-interfaces", "--listen-address=127.0.0.1", "--local=/test/"]);
        command.arg(format!("--port={}", address.port())).arg(format!("--addn-hosts={}", hosts.display()));
        command.args(further).args(services.iter().map(|service| format!("--srv-host={service}")));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut dns = Self { child, address, hosts, _folder: folder };
        wait_until("dnsmasq answers", || {
            if let Ok(Some(status)) = dns.child.try_wait() {
                panic!("{command:?} ended at its start: {status}");
            }
            TcpStream::connect(address).is_ok()
        });
        dns
    }

    /// Where it answers, by UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it has these records.
    pub fn change_to(&self, records: &[(&str, &str)]) {
        fs::write(&self.hosts, text_of(records)).expect("the folder is writable");
        // It reads the file again (dnsmasq(8), NOTES).
        process::send(self.child.id(), Signal::HUP);
    }

    /// Ends it: its address refuses.
    pub fn stop(self) -> SocketAddr {
        self.address
    }

    /// Answers again at the address of one that has ended.
    #[track_caller]
    pub fn back_at(address: SocketAddr, records: &[(&str, &str)]) -> Self {
        Self::start(address, records, &[], &[])
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text_of(records: &[(&str, &str)]) -> String {
    records.iter().map(|(name, address)| format!("{address} {name}\n")).collect()
}
