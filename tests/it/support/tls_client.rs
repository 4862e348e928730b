//! TLS clients: openssl's, which shows what was agreed on.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use super::openssl;

/// What openssl's client has seen of one connection, and what it received.
#[derive(Debug)]
pub struct Seen {
    shown: String,
    /// Its complaints.
    pub errors: String,
}

/// Connects with openssl's client, in `folder`, with these arguments; it sends nothing and leaves after the handshake.
pub fn shake_hands(address: SocketAddr, folder: &Path, arguments: &str) -> Seen {
    let mut command = openssl();
    command.args(["s_client", "-connect", &address.to_string()]).args(arguments.split_whitespace());
    let output = command.current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Seen { shown: text(&output.stdout), errors: text(&output.stderr) }
}

impl Seen {
    /// The common name in the server's certificate; `None`: it was shown none.
    pub fn server(&self) -> Option<String> {
        let line = self.shown.lines().find_map(|line| line.strip_prefix("subject="))?;
        Some(line.rsplit('=').next().unwrap_or_default().trim().to_owned())
    }

    /// `TLSv1.3 TLS_AES_128_GCM_SHA256`, where the handshake went well.
    pub fn agreed(&self) -> Option<String> {
        let line = self.shown.lines().find(|line| line.starts_with("New, ") || line.starts_with("Reused, "))?;
        let (_, rest) = line.split_once(", ")?;
        let (_, cipher) = rest.split_once("Cipher is ")?;
        let version = self.after("Protocol  : ").unwrap_or("TLSv1.3");
        (cipher != "(NONE)").then(|| format!("{version} {cipher}"))
    }

    pub fn is_resumed(&self) -> bool {
        self.shown.lines().any(|line| line.starts_with("Reused, "))
    }

    /// What follows `word` on its line.
    pub fn after(&self, word: &str) -> Option<&str> {
        self.shown.lines().find_map(|line| line.trim_start().strip_prefix(word))
    }
}
