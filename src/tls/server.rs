//! The server's side: who it is, whom it lets in. Made of files, which may change while it serves.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::{NoClientAuth, ServerSessionMemoryCache};
use rustls::{
    ALL_VERSIONS, CommonState, Error, HandshakeKind, ProtocolVersion, ServerConfig, SupportedProtocolVersion, version,
};

use super::certificate::Certificate;
use super::certificate_store::CertificateStore;
use super::client_auth::{ClientAuth, ClientTrust};
use super::provider::provider;
use super::server_files::{CertificateFiles, FileProblem, LoadedCertificate, described, load_certificates};
use super::tickets::Ticketer;

/// Sessions of TLS 1.2 clients that know no tickets. About 200 bytes each, and a client's certificate.
const MAX_SESSIONS: usize = 1024;

static ONLY_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// What a server's side is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// At least one.
    pub certificates: Vec<CertificateFiles>,
    /// 1.2 or 1.3.
    pub min_version: ProtocolVersion,
    /// Protocols that clients may choose from, the preferred one first; empty: none is spoken of.
    pub alpn: Vec<Vec<u8>>,
    /// `None`: clients are asked for no certificate.
    pub client_auth: Option<ClientAuth>,
    /// Whether clients without a name, or with one that no certificate is for, are refused.
    pub strict_sni: bool,
}

/// A server's side, for any number of connections on any thread. Two are equal if their settings are, whatever their
/// files hold.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    settings: ServerSettings,
    loaded: ArcSwap<Loaded>,
    /// Why the files can't be used as they are now.
    problem: ArcSwapOption<String>,
}

/// What the files held when they were read.
#[derive(Clone)]
pub struct Loaded {
    config: Arc<ServerConfig>,
    certificates: Vec<LoadedCertificate>,
    /// Those that were read, and the directories.
    files: Vec<PathBuf>,
    client_trust: Option<ClientTrust>,
    /// That of `config`.
    ticketer: Arc<Ticketer>,
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// Every problem with them.
    pub fn load(settings: ServerSettings) -> Result<Self, Vec<FileProblem>> {
        let loaded = Loaded::read(&settings)?;
        let (loaded, problem) = (ArcSwap::from_pointee(loaded), ArcSwapOption::empty());
        Ok(Self(Arc::new(Shared { settings, loaded, problem })))
    }

    /// For the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.loaded.load().config.clone()
    }

    /// Judges the client of a resumed session anew: its certificate may have expired since it was shown.
    ///
    /// # Errors
    /// It is good no more.
    pub fn judge_resumed(&self, session: &CommonState) -> Result<(), Error> {
        let loaded = self.0.loaded.load();
        match (session.handshake_kind(), session.peer_certificates(), &loaded.client_trust) {
            (Some(HandshakeKind::Resumed), Some([own, others @ ..]), Some(trust)) => {
                trust.verifier().verify_client_cert(own, others, UnixTime::now()).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What the files held when they were read last.
    pub fn loaded(&self) -> Arc<Loaded> {
        self.0.loaded.load_full()
    }

    /// Reads the files again: the next connection meets what they hold now. Returns whether that is something else.
    /// Blocks on them.
    ///
    /// # Errors
    /// Every problem with them; then nothing has changed.
    pub fn reload(&self) -> Result<bool, Vec<FileProblem>> {
        match Loaded::read(&self.0.settings) {
            Ok(loaded) => Ok(self.replace(&loaded)),
            Err(problems) => {
                self.0.problem.store(Some(Arc::new(described(&problems))));
                Err(problems)
            }
        }
    }

    /// From the next connection on, this one has what `other` has read from the same files.
    pub fn take_over(&self, other: &Self) {
        self.replace(&other.loaded());
    }

    /// What the process that takes over needs to resume the sessions that began here; secret.
    pub fn hand_on_sessions(&self) -> Vec<u8> {
        let loaded = self.loaded();
        let judgement = ClientTrust::fingerprint(loaded.client_trust.as_ref());
        [&judgement[..], &loaded.ticketer.hand_on(Instant::now())].concat()
    }

    /// Resumes sessions of the process before, if clients are judged as they were there.
    pub fn continue_sessions(&self, handed_on: &[u8]) {
        let loaded = self.loaded();
        let judgement = ClientTrust::fingerprint(loaded.client_trust.as_ref());
        let ticketer =
            handed_on.strip_prefix(&judgement[..]).and_then(|keys| Ticketer::continuing(keys, Instant::now()));
        if let Some(ticketer) = ticketer {
            self.0.loaded.store(Arc::new(loaded.with_tickets(Arc::new(ticketer))));
        }
    }

    /// Why the files can't be used as they are now; what they held before is in use.
    pub fn problem(&self) -> Option<Arc<String>> {
        self.0.problem.load_full()
    }

    fn replace(&self, loaded: &Loaded) -> bool {
        let before = self.loaded();
        self.0.problem.store(None);
        self.0.loaded.store(Arc::new(loaded.continuing(&before)));
        !loaded.is_like(&before)
    }

    /// The files and directories to be watched for changes.
    pub fn files(&self) -> Vec<PathBuf> {
        self.loaded().files.clone()
    }
}

impl Loaded {
    /// In the order of the settings.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &Certificate> {
        self.certificates.iter().map(|loaded| &loaded.certificate)
    }

    /// When the first revocation list is over its date, after which clients are refused; `None`: never.
    pub fn lists_expire(&self) -> Option<SystemTime> {
        self.client_trust.as_ref()?.lists_expire()
    }

    /// Whether both serve the same clients with the same certificates. The keys are theirs.
    fn is_like(&self, other: &Self) -> bool {
        let [own, others] = [self, other].map(|loaded| loaded.certificates.iter().map(|it| &it.key.cert));
        self.client_trust == other.client_trust && own.eq(others)
    }

    fn read(settings: &ServerSettings) -> Result<Self, Vec<FileProblem>> {
        let provider = provider();
        let mut problems = Vec::new();
        let (certificates, mut files) = load_certificates(&settings.certificates, &provider, &mut problems);
        let client_trust = settings.client_auth.as_ref().and_then(|auth| {
            files.extend(auth.files());
            auth.load(&provider).map_err(|problem| problems.push(problem)).ok()
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let ticketer = Arc::new(Ticketer::new());
        let mut config = new_config(settings, provider, &certificates, client_trust.as_ref());
        config.ticketer = ticketer.clone();
        Ok(Self { config: Arc::new(config), certificates, files, client_trust, ticketer })
    }

    /// The same, with the sessions of `before` if clients are still judged as then: resumed, a session asks for no
    /// certificate, and one of a client that has been revoked since must not be.
    fn continuing(&self, before: &Self) -> Self {
        if self.client_trust != before.client_trust {
            return self.clone();
        }
        let mut continuing = self.with_tickets(before.ticketer.clone());
        Arc::make_mut(&mut continuing.config).session_storage.clone_from(&before.config.session_storage);
        continuing
    }

    fn with_tickets(&self, ticketer: Arc<Ticketer>) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = ticketer.clone();
        Self { config: Arc::new(config), ticketer, ..self.clone() }
    }
}

/// Neither early data (replays) nor renegotiation: rustls has the latter for nobody, the former off.
fn new_config(
    settings: &ServerSettings,
    provider: Arc<CryptoProvider>,
    certificates: &[LoadedCertificate],
    client_trust: Option<&ClientTrust>,
) -> ServerConfig {
    let verifier = client_trust.map_or_else(|| Arc::new(NoClientAuth) as _, ClientTrust::verifier);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(settings.min_version))
        .expect("the provider has ciphers of both versions")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(CertificateStore::new(certificates, settings.strict_sni)));
    config.alpn_protocols.clone_from(&settings.alpn);
    config.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
    config
}

fn versions(min: ProtocolVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        ProtocolVersion::TLSv1_3 => ONLY_1_3,
        _ => ALL_VERSIONS,
    }
}

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.0.settings == other.0.settings
    }
}

impl Eq for Server {}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.settings.fmt(f)
    }
}
