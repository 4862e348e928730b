//! A client's and a server's session, whose records are cut, changed, dropped and mixed with others: what arrives is
//! the beginning of what was sent, an end is believed only from the peer, and after an error nothing arrives at all.
//! Before that, a session of either kind that gets the input itself.
#![no_main]

use std::sync::{Arc, LazyLock};

use lb::bench::tls::{MAX_OVERHEAD_BYTES, MAX_PLAINTEXT_BYTES, Records, Session};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

const CERTIFICATE: &[u8] = include_bytes!("../../tests/data/tls/localhost.pem");
const KEY: &[u8] = include_bytes!("../../tests/data/tls/localhost.key");

/// For TLS 1.2 and 1.3.
static CONFIGS: LazyLock<[(Arc<ClientConfig>, Arc<ServerConfig>); 2]> =
    LazyLock::new(|| [configs(&version::TLS12), configs(&version::TLS13)]);

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let server = server.with_no_client_auth();
    let server = server.with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(KEY).unwrap()).unwrap();
    (Arc::new(client.with_root_certificates(roots).with_no_client_auth()), Arc::new(server))
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let (client, server) = &CONFIGS[usize::from(first & 1)];
    for mut end in [End::client(client), End::server(server)] {
        end.receive(&[]);
        rest.chunks(usize::from(*first) + 1).for_each(|piece| end.receive(piece));
        assert!(end.plaintext.is_empty() && !end.session.has_peer_ended(), "without keys there is none");
    }
    exchange(End::client(client), End::server(server), rest);
});

/// Each step of `steps` is two bytes: what is done, and how much of it.
fn exchange(mut client: End, mut server: End, steps: &[u8]) {
    client.receive(&[]);
    for step in steps.chunks_exact(2) {
        let (from, to) = if step[0] & 1 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let amount = usize::from(step[1]) + 1;
        match step[0] >> 1 & 7 {
            0 | 1 => from.deliver(to, usize::MAX),
            2 => from.deliver(to, amount),
            3 => from.send(&vec![step[1]; amount * MAX_PLAINTEXT_BYTES / 256]),
            4 => from.send(&[step[1]]),
            5 => from.end(),
            6 => from.change(amount),
            _ => from.insert(&[23, 3, 3, 0, step[1]]),
        }
    }
    for _ in 0..8 {
        client.deliver(&mut server, usize::MAX);
        server.deliver(&mut client, usize::MAX);
    }
}

/// One side: what it has sent, what is on its way from it, and what it has received.
struct End {
    session: Session,
    incomplete: Vec<u8>,
    plaintext: Vec<u8>,
    outgoing: Records,
    /// All plaintext that it was given to send.
    sent: Vec<u8>,
    has_ended: bool,
    /// Records that the peer has not got yet; `is_changed`: not what the session made.
    on_the_way: Vec<u8>,
    is_changed: bool,
    has_failed: bool,
}

impl End {
    fn client(config: &Arc<ClientConfig>) -> Self {
        Self::new(Session::client(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap())
    }

    fn server(config: &Arc<ServerConfig>) -> Self {
        Self::new(Session::server(config.clone()).unwrap())
    }

    fn new(session: Session) -> Self {
        Self {
            session,
            incomplete: Vec::new(),
            plaintext: Vec::new(),
            outgoing: Records::with_capacity(0),
            sent: Vec::new(),
            has_ended: false,
            on_the_way: Vec::new(),
            is_changed: false,
            has_failed: false,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.incomplete.extend_from_slice(bytes);
        let before = self.plaintext.len();
        let plaintext = &mut self.plaintext;
        let take = &mut |bytes: &[u8]| plaintext.extend_from_slice(bytes);
        let processed = self.session.process(&mut self.incomplete, take, &mut self.outgoing);
        assert!(!self.has_failed || processed.result.is_err() && self.plaintext.len() == before, "it was over");
        self.has_failed |= processed.result.is_err();
        self.incomplete.drain(..processed.consumed);
        self.say();
    }

    fn say(&mut self) {
        self.on_the_way.extend_from_slice(self.outgoing.bytes());
        self.outgoing.clear();
    }

    /// Hands at most so many bytes to the peer.
    fn deliver(&mut self, to: &mut Self, bytes: usize) {
        let bytes = bytes.min(self.on_the_way.len());
        let piece: Vec<u8> = self.on_the_way.drain(..bytes).collect();
        if piece.is_empty() {
            return;
        }
        to.receive(&piece);
        assert!(self.sent.starts_with(&to.plaintext), "what was not sent arrives");
        assert!(!to.session.has_peer_ended() || self.has_ended, "an end that nobody has said");
        assert!(!to.has_failed || self.is_changed || to.is_changed || self.has_failed, "sound records are refused");
        let is_all_there = self.on_the_way.is_empty() && to.incomplete.is_empty();
        if is_all_there && !self.is_changed && !to.has_failed && !to.session.has_peer_ended() && !self.has_ended {
            assert_eq!(self.sent.len(), to.plaintext.len(), "what was sent does not arrive");
        }
    }

    fn send(&mut self, plaintext: &[u8]) {
        if self.session.state().is_handshaking() || self.has_ended {
            return;
        }
        let result = self.session.encrypt(&mut self.incomplete, plaintext, &mut self.outgoing);
        if result.is_ok() {
            assert!(self.outgoing.bytes().len() <= plaintext.len() + MAX_OVERHEAD_BYTES + ALERTS_AND_KEY_UPDATES);
            self.sent.extend_from_slice(plaintext);
        }
        self.say();
    }

    fn end(&mut self) {
        if !self.session.state().is_handshaking() {
            self.has_ended |= self.session.end(&mut self.incomplete, &mut self.outgoing).is_ok();
            self.say();
        }
    }

    /// Changes the byte there on its way.
    fn change(&mut self, at: usize) {
        if let Some(byte) = self.on_the_way.get_mut(at - 1) {
            *byte ^= 0x55;
            self.is_changed = true;
        }
    }

    /// Puts these before all that is on its way.
    fn insert(&mut self, bytes: &[u8]) {
        self.on_the_way.splice(0..0, bytes.iter().copied());
        self.is_changed = true;
    }
}

const ALERTS_AND_KEY_UPDATES: usize = 256;
