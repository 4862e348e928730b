//! The client's side: whom it trusts, who it is, and the handshake.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::Identity;
use super::provider::provider;
use super::verifier::{Trust, Verifier};

/// What a client's side is made of.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientSettings {
    pub trust: Trust,
    /// What it shows to servers that ask for a certificate; `None`: nothing.
    pub identity: Option<Identity>,
    /// Protocols that the server may choose from; empty: none is spoken of.
    pub alpn: Vec<Vec<u8>>,
    pub sessions: Sessions,
}

/// What becomes of a session once its connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Later connections resume it: their handshake costs less, and the server shows no certificate.
    Resumed,
    /// Each connection begins a new one: a certificate that has expired since would not be noticed else.
    Fresh,
}

/// Sessions that are kept for resumption, each of one server name; rustls's own number.
const MAX_SESSIONS: usize = 256;

/// A client's side, ready for any number of connections. Two are equal if their settings are.
#[derive(Clone)]
pub struct Client {
    settings: Arc<ClientSettings>,
    config: Arc<ClientConfig>,
}

impl Client {
    /// Versions 1.2 and 1.3.
    ///
    /// # Errors
    /// In words: a certificate of the trust can't be read, or the key is not the certificate's.
    pub fn new(settings: ClientSettings) -> Result<Self, String> {
        let provider = provider();
        let verifier = Verifier::new(&settings.trust, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers of both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|_| "the key is not that of the certificate".to_owned())?,
        };
        config.resumption = match settings.sessions {
            Sessions::Resumed => Resumption::in_memory_sessions(MAX_SESSIONS),
            Sessions::Fresh => Resumption::disabled(),
        };
        config.alpn_protocols.clone_from(&settings.alpn);
        Ok(Self { settings: Arc::new(settings), config: Arc::new(config) })
    }

    /// For a connection of its own kind.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// Shakes hands over `stream` with the server of this name. Safe to cancel.
    ///
    /// # Errors
    /// [`super::words_for`] says what they mean.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        name: ServerName<'static>,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        TlsConnector::from(self.config.clone()).connect(name, stream).await
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
