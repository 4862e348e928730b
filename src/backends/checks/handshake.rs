//! TLS for a check: at the connection's beginning, or where its protocol has agreed on it.

use crate::config::TlsTo;
use crate::tls::{self, ServerName};

use super::check_target::CheckTarget;
use super::failure::CheckError;
use super::stream::CheckStream;

/// A handshake that is to be made.
pub(super) struct Handshake<'a> {
    tls: &'a TlsTo,
    name: ServerName<'static>,
}

impl<'a> Handshake<'a> {
    pub(super) fn with(target: &CheckTarget, tls: &'a TlsTo) -> Self {
        Self { tls, name: tls.server_name.clone().unwrap_or_else(|| target.server_name()) }
    }

    /// The same connection, encrypted from here on.
    pub(super) async fn over(self, stream: CheckStream) -> Result<CheckStream, CheckError> {
        let secure = self.tls.client.connect(self.name, stream).await.map_err(|error| {
            let reason = tls::words_for(&error).unwrap_or_else(|| format!("TLS handshake failed: {error}"));
            CheckError::backend(reason)
        })?;
        Ok(Box::new(secure))
    }
}
