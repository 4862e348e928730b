//! Which library does the mathematics: see ARCHITECTURE.md, "TLS".

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Its suites are Mozilla's intermediate ones of TLS 1.3 and 1.2 that have forward secrecy and an AEAD.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
