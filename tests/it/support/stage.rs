//! A configuration of nginx or HAProxy, unchanged, run by that program and then by lb, in a network where its addresses
//! are free.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

use super::clients::{bound, read_to_end};
use super::files::Folder;
use super::lb::Lb;
use super::network::put_in_place_of;
use super::packages::required;
use super::peers::STREAM_MODULE;
use super::ports::Refusing;
use super::programs::Program;
use super::servers::Server;

/// A file of tests/data/import.
pub fn case(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(name);
    std::fs::read_to_string(path).expect("a file of the tests")
}

/// Where both programs run, one after the other.
pub struct Stage {
    folder: Folder,
    file: PathBuf,
    /// Accepts there once it runs.
    address: SocketAddr,
}

impl Stage {
    /// For a configuration that listens at `address` among others.
    pub fn of(name: &str, text: &str, address: &str) -> Self {
        let folder = Folder::new();
        let file = folder.write(name, text);
        Self { folder, file, address: address.parse().expect("an address") }
    }

    pub fn nginx(&self) -> Program {
        for (system, own) in [("/var/log/nginx", "log"), ("/var/lib/nginx", "lib")] {
            let own = self.folder.path().join(own);
            std::fs::create_dir_all(&own).expect("the folder is writable");
            put_in_place_of(system, &own);
        }
        let at = self.folder.path().display();
        let mut further = format!("daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log;");
        if std::fs::read_to_string(&self.file).expect("it was written").contains("stream {") {
            further.insert_str(0, &format!("load_module {};", required(STREAM_MODULE).display()));
        }
        let mut command = Command::new(required("nginx"));
        command.args(["-p", &at.to_string(), "-c", &self.file.display().to_string(), "-g", &further]);
        Program::serving_at(self.address, &mut command)
    }

    pub fn haproxy(&self) -> Program {
        let mut command = Command::new(required("haproxy"));
        command.args(["-db", "-f", &self.file.display().to_string()]);
        Program::serving_at(self.address, &mut command)
    }

    /// lb with the same file.
    pub fn lb(&self) -> Lb {
        Lb::with_arguments(&["-c", &self.file.display().to_string()]).start()
    }
}

/// A server at `address` that takes what comes up to `hello` and a line's end, and answers with `name`, `|` and all it
/// got.
pub fn teller(address: &str, name: &str) -> Server {
    let name = name.to_owned();
    Server::on(Refusing::at(address.parse().expect("an address")), move |mut stream| {
        let (mut received, mut buffer) = (Vec::new(), [0; 1024]);
        while !received.ends_with(b"hello\n") {
            match stream.read(&mut buffer) {
                Ok(length @ 1..) => received.extend_from_slice(&buffer[..length]),
                _ => return,
            }
        }
        let _ = stream.write_all(&[name.as_bytes(), b"|", &received].concat());
    })
}

/// A server at `address` that answers the first bytes with its name, and ends.
pub fn answering(address: &str, name: &str) -> Server {
    let name = name.to_owned();
    Server::on(Refusing::at(address.parse().expect("an address")), move |mut stream| {
        if stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
            let _ = stream.write_all(name.as_bytes());
        }
    })
}

/// An HTTP server at `address` for health checks, which answers with this status as it is at the time.
pub fn agent(address: &str, status: &Arc<AtomicU16>) -> Server {
    let status = status.clone();
    Server::on(Refusing::at(address.parse().expect("an address")), move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let status = status.load(Ordering::Relaxed);
        let _ = stream
            .write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
    })
}

/// What a `teller` behind `address` says to a client, whose own port is shown as `PORT`; empty where the client is
/// refused.
#[track_caller]
pub fn told(address: &str) -> String {
    told_from("127.0.0.1", address)
}

/// The same to a client of that address.
#[track_caller]
pub fn told_from(client: &str, address: &str) -> String {
    let address: SocketAddr = address.parse().expect("an address");
    let client: IpAddr = client.parse().expect("an IP address");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(client, 0).into()).expect("an address of this machine");
    if socket.connect(&address.into()).is_err() {
        return String::new();
    }
    let mut stream = TcpStream::from(socket);
    bound(&stream);
    let port = stream.local_addr().expect("a connected socket").port();
    let _ = stream.write_all(b"hello\n");
    let (received, _) = read_to_end(&mut stream);
    String::from_utf8_lossy(&received).replace(&format!(" {port} "), " PORT ")
}
