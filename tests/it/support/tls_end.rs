//! One end of a TLS connection in the test's own hand, by rustls: what is sent, when, and how it ends.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

use super::{Authority, bound, connect};

/// A socket, and TLS over it.
pub struct TlsEnd {
    connection: Connection,
    pub socket: TcpStream,
}

/// How what the peer sent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnding {
    /// By close_notify.
    Clean,
    /// By a FIN alone.
    Truncated,
    /// By a RST.
    Reset,
}

impl TlsEnd {
    /// Connects to `localhost` there, by the version that both have.
    #[track_caller]
    pub fn connect(address: SocketAddr, authority: &Authority) -> Self {
        Self::over(connect(address), authority)
    }

    #[track_caller]
    pub fn over(socket: TcpStream, authority: &Authority) -> Self {
        let mut end = Self::before_handshake(socket, authority);
        end.shake_hands().unwrap_or_else(|error| panic!("the handshake failed: {error}"));
        end
    }

    pub fn before_handshake(socket: TcpStream, authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(authority.path("ca.pem").as_ref()));
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        Self { connection: ClientConnection::new(Arc::new(config), name).unwrap().into(), socket }
    }

    /// As the server, with this certificate.
    #[track_caller]
    pub fn accept(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Self> {
        bound(&socket);
        let mut end = Self { connection: ServerConnection::new(config.clone()).unwrap().into(), socket };
        end.shake_hands().map(|()| end)
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        self.connection.complete_io(&mut self.socket).map(drop)
    }

    /// Says that no more comes.
    pub fn end(&mut self) -> io::Result<()> {
        self.connection.send_close_notify();
        self.flush()
    }

    /// Begins to send with other keys, and asks the peer to do the same.
    pub fn update_keys(&mut self) {
        self.connection.refresh_traffic_keys().expect("TLS 1.3");
    }

    /// The records of `bytes`, which are not sent.
    pub fn records_of(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        self.connection.writer().write_all(bytes).unwrap();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut records).unwrap();
        }
        records
    }

    /// Reads until the peer's end: what came, and how it ended.
    pub fn read_all(&mut self) -> (Vec<u8>, TlsEnding) {
        let mut received = Vec::new();
        let ending = match Read::read_to_end(self, &mut received) {
            Ok(_) => TlsEnding::Clean,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => TlsEnding::Truncated,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => TlsEnding::Reset,
            Err(error) => panic!("neither an end nor a reset after {} bytes: {error}", received.len()),
        };
        (received, ending)
    }
}

impl Read for TlsEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.connection.read_tls(&mut self.socket)?;
            self.connection.process_new_packets().map_err(io::Error::other)?;
            self.flush()?;
        }
    }
}

impl Write for TlsEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.connection.writer().write(bytes)?;
        self.flush()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

/// A server's side, with the certificate `name` of this authority.
pub fn tls_server(authority: &Authority, name: &str) -> Arc<ServerConfig> {
    let chain = certificates(authority.path(&format!("{name}.pem")).as_ref());
    let key = PrivateKeyDer::from_pem_file(authority.path(&format!("{name}.key"))).unwrap();
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    let reader = BufReader::new(File::open(file).unwrap());
    CertificateDer::pem_reader_iter(reader).collect::<Result<_, _>>().unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
