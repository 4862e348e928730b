//! One TLS connection without its socket: received records in, plaintext out; plaintext in, records out.
//!
//! rustls keeps the state: handshake, keys and their updates, alerts, tickets. Of the buffers it has none: records are
//! decrypted where they were received, and written to where they are sent from. What a peer sends is bounded by rustls:
//! handshake messages have 64 KiB, records 16 KiB.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use super::records::Records;

/// The most plaintext that a record holds (RFC 8446, 5.1).
pub const MAX_PLAINTEXT_BYTES: usize = 16 * 1024;
/// A record is longer than its plaintext by this much at most: with rustls's suites by 29 bytes.
pub const MAX_OVERHEAD_BYTES: usize = 64;

/// One side of a TLS connection.
pub struct Session {
    side: Side,
    has_peer_ended: bool,
    /// rustls must not be asked any more.
    has_failed: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What the records that were received led to.
pub struct Processed {
    /// So many bytes at the beginning have been dealt with. The others, changed as they may be, must be at the
    /// beginning the next time.
    pub consumed: usize,
    /// A fatal error leaves an alert among the outgoing records.
    pub result: Result<(), Error>,
}

/// How rustls goes on after a state.
enum Next {
    /// It has more to say.
    Again,
    /// It wants records.
    Wait,
    /// The peer has ended its side.
    PeerEnded,
}

impl Session {
    /// With a client.
    ///
    /// # Errors
    /// The configuration is at fault.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::new(Side::Server(UnbufferedServerConnection::new(config)?)))
    }

    /// With the server of this name.
    ///
    /// # Errors
    /// The configuration is at fault.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Ok(Self::new(Side::Client(UnbufferedClientConnection::new(config, name)?)))
    }

    fn new(side: Side) -> Self {
        Self { side, has_peer_ended: false, has_failed: false }
    }

    /// What was agreed on.
    pub fn state(&self) -> &CommonState {
        match &self.side {
            Side::Server(server) => server.deref(),
            Side::Client(client) => client.deref(),
        }
    }

    /// The peer has said that it sends no more (close_notify).
    pub fn has_peer_ended(&self) -> bool {
        self.has_peer_ended
    }

    /// Takes in all whole records at the beginning of `received`, and gives their plaintext to `take` piece by piece.
    /// What is to be sent in return is appended to `outgoing`.
    pub fn process(&mut self, received: &mut [u8], take: &mut dyn FnMut(&[u8]), outgoing: &mut Records) -> Processed {
        if self.has_failed {
            // rustls must not be asked again; what still comes is of no use.
            return Processed { consumed: received.len(), result: Err(Error::General("the session is over".into())) };
        }
        let mut consumed = 0;
        let result = loop {
            let rest = &mut received[consumed..];
            let (discard, next) = match &mut self.side {
                Side::Server(server) => step(server.process_tls_records(rest), take, outgoing),
                Side::Client(client) => step(client.process_tls_records(rest), take, outgoing),
            };
            consumed += discard;
            match next {
                Ok(Next::Again) => {}
                Ok(Next::Wait) => break Ok(()),
                Ok(Next::PeerEnded) => self.has_peer_ended = true,
                Err(error) => {
                    self.has_failed = true;
                    self.take_alert(outgoing);
                    break Err(error);
                }
            }
        };
        Processed { consumed, result }
    }

    /// Appends `plaintext`, of one record at most, to `outgoing`. `incomplete` is what [`Session::process`] has left of
    /// the received records.
    ///
    /// # Errors
    /// The session is over, or its keys are used up.
    pub fn encrypt(&mut self, incomplete: &mut [u8], plaintext: &[u8], outgoing: &mut Records) -> io::Result<()> {
        debug_assert!(plaintext.len() <= MAX_PLAINTEXT_BYTES);
        self.write(incomplete, outgoing, &mut Write::Plaintext(plaintext))
    }

    /// Appends to `outgoing` that no more will be sent (close_notify).
    ///
    /// # Errors
    /// The session is over.
    pub fn end(&mut self, incomplete: &mut [u8], outgoing: &mut Records) -> io::Result<()> {
        self.write(incomplete, outgoing, &mut Write::End)
    }

    fn write(&mut self, incomplete: &mut [u8], outgoing: &mut Records, what: &mut Write<'_>) -> io::Result<()> {
        loop {
            if self.has_failed {
                return Err(io::ErrorKind::NotConnected.into());
            }
            let is_done = match &mut self.side {
                Side::Server(server) => write_step(server.process_tls_records(incomplete), outgoing, what),
                Side::Client(client) => write_step(client.process_tls_records(incomplete), outgoing, what),
            };
            if is_done.inspect_err(|_| self.has_failed = true)? {
                return Ok(());
            }
        }
    }

    /// What is left to say after an error: why.
    fn take_alert(&mut self, outgoing: &mut Records) {
        let ignore = &mut |_: &[u8]| {};
        while self.state().wants_write() {
            let (_, next) = match &mut self.side {
                Side::Server(server) => step(server.process_tls_records(&mut []), ignore, outgoing),
                Side::Client(client) => step(client.process_tls_records(&mut []), ignore, outgoing),
            };
            if next.is_err() {
                return;
            }
        }
    }
}

/// Deals with one state; gives the bytes that it has consumed.
fn step<Data>(
    UnbufferedStatus { mut discard, state }: UnbufferedStatus<'_, '_, Data>,
    take: &mut dyn FnMut(&[u8]),
    outgoing: &mut Records,
) -> (usize, Result<Next, Error>) {
    let next = match state {
        Err(error) => return (discard, Err(error)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        take(record.payload);
                    }
                    Err(error) => return (discard, Err(error)),
                }
            }
            Next::Again
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(outgoing, |spare| match data.encode(spare) {
                Ok(length) => Ok(length),
                Err(EncodeError::InsufficientSize(needed)) => Err(needed.required_size),
                Err(EncodeError::AlreadyEncoded) => Ok(0),
            });
            Next::Again
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // It is among `outgoing`, in its order, and will be sent.
            data.done();
            Next::Again
        }
        Ok(ConnectionState::PeerClosed) => Next::PeerEnded,
        // Early data is off, and other states don't exist.
        Ok(_) => Next::Wait,
    };
    (discard, Ok(next))
}

/// What is to be written once rustls is ready for it.
enum Write<'a> {
    Plaintext(&'a [u8]),
    End,
}

/// Deals with one state of a session that has no whole record to take in; `true`: it is written.
fn write_step<Data>(
    UnbufferedStatus { state, .. }: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Records,
    what: &mut Write<'_>,
) -> io::Result<bool> {
    match state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            write_traffic(&mut traffic, outgoing, what)?;
            Ok(true)
        }
        state => {
            let (_, next) = step(UnbufferedStatus { discard: 0, state }, &mut |_| {}, outgoing);
            match next {
                Ok(Next::Again | Next::PeerEnded) => Ok(false),
                Ok(Next::Wait) => Err(io::ErrorKind::NotConnected.into()),
                Err(error) => Err(io::Error::other(error)),
            }
        }
    }
}

fn write_traffic<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    outgoing: &mut Records,
    what: &mut Write<'_>,
) -> io::Result<()> {
    let mut result = Ok(());
    encode(outgoing, |spare| {
        let written = match what {
            Write::Plaintext(plaintext) => traffic.encrypt(plaintext, spare),
            Write::End => traffic.queue_close_notify(spare),
        };
        match written {
            Ok(length) => Ok(length),
            Err(EncryptError::InsufficientSize(needed)) => Err(needed.required_size),
            Err(error @ EncryptError::EncryptExhausted) => {
                result = Err(io::Error::other(error));
                Ok(0)
            }
        }
    });
    result
}

/// Appends what `write` writes; it says how much that was, or how much room it needs.
fn encode(outgoing: &mut Records, mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
    loop {
        match write(outgoing.spare()) {
            Ok(length) => return outgoing.add(length),
            Err(needed) => outgoing.reserve(needed),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests")]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{RootCertStore, version};

    use super::super::provider::provider;
    use super::*;

    const CERTIFICATE: &[u8] = include_bytes!("../../tests/data/tls/localhost.pem");
    const KEY: &[u8] = include_bytes!("../../tests/data/tls/localhost.key");

    /// One side, with what it has received and not dealt with, and what it has said and not sent.
    struct End {
        session: Session,
        received: Vec<u8>,
        plaintext: Vec<u8>,
        outgoing: Records,
    }

    impl End {
        fn new(session: Session) -> Self {
            Self { session, received: Vec::new(), plaintext: Vec::new(), outgoing: Records::with_capacity(0) }
        }

        /// Takes in `bytes`, so many at a time; none: begins.
        fn receive(&mut self, bytes: &[u8], piece: usize) -> Result<(), Error> {
            let pieces = if bytes.is_empty() { vec![bytes] } else { bytes.chunks(piece).collect() };
            for piece in pieces {
                self.received.extend_from_slice(piece);
                let plaintext = &mut self.plaintext;
                let take = &mut |bytes: &[u8]| plaintext.extend_from_slice(bytes);
                let processed = self.session.process(&mut self.received, take, &mut self.outgoing);
                self.received.drain(..processed.consumed);
                processed.result?;
            }
            Ok(())
        }

        fn say(&mut self) -> Vec<u8> {
            let said = self.outgoing.bytes().to_vec();
            self.outgoing.clear();
            said
        }

        fn send(&mut self, plaintext: &[u8]) -> Vec<u8> {
            self.session.encrypt(&mut self.received, plaintext, &mut self.outgoing).unwrap();
            self.say()
        }
    }

    /// A client and a server after their handshake, whose bytes came in pieces.
    fn pair(is_tls13: bool, piece: usize) -> (End, End) {
        let versions = if is_tls13 { [&version::TLS13] } else { [&version::TLS12] };
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&versions).unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions).unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = End::new(Session::client(Arc::new(client), name).unwrap());
        let mut server = End::new(Session::server(Arc::new(server)).unwrap());
        client.receive(&[], piece).unwrap();
        loop {
            let (said, answered) = (client.say(), server.say());
            if said.is_empty() && answered.is_empty() {
                break;
            }
            server.receive(&said, piece).unwrap();
            client.receive(&answered, piece).unwrap();
        }
        assert!(!client.session.state().is_handshaking() && !server.session.state().is_handshaking());
        (client, server)
    }

    #[test]
    fn plaintext_comes_whole_however_the_records_are_cut() {
        for (is_tls13, piece) in [(true, 1), (true, 7), (true, usize::MAX), (false, 1), (false, 1000)] {
            let (mut client, mut server) = pair(is_tls13, piece);
            for message in [&b"a"[..], &[7; MAX_PLAINTEXT_BYTES], b"end"] {
                let records = client.send(message);
                assert!(records.len() <= message.len() + MAX_OVERHEAD_BYTES);
                server.receive(&records, piece).unwrap();
                assert!(std::mem::take(&mut server.plaintext) == message);
            }
            let answer = server.send(b"answer");
            client.receive(&answer, piece).unwrap();
            assert_eq!(std::mem::take(&mut client.plaintext), b"answer");
            client.session.end(&mut client.received, &mut client.outgoing).unwrap();
            server.receive(&client.say(), piece).unwrap();
            assert!(server.session.has_peer_ended() && !client.session.has_peer_ended());
            // The other direction lives on.
            let answer = server.send(b"later");
            client.receive(&answer, piece).unwrap();
            assert_eq!(client.plaintext, b"later");
        }
    }

    #[test]
    fn a_changed_record_is_an_error_with_an_alert_and_the_session_is_over() {
        for is_tls13 in [true, false] {
            let length = pair(is_tls13, usize::MAX).0.send(b"message").len();
            // Not the head: its version is not looked at, and with another length more is waited for.
            for at in 5..length {
                let (mut client, mut server) = pair(is_tls13, usize::MAX);
                let mut record = client.send(b"message");
                record[at] ^= 0x40;
                assert!(server.receive(&record, usize::MAX).is_err(), "byte {at}");
                assert!(server.plaintext.is_empty() && !server.say().is_empty(), "byte {at}");
                server.session.encrypt(&mut [], b"more", &mut server.outgoing).unwrap_err();
                server.session.end(&mut [], &mut server.outgoing).unwrap_err();
            }
        }
    }
}
