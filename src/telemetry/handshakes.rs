//! Counts of TLS handshakes with clients.

use std::sync::atomic::{AtomicU64, Ordering};

labels! {
    /// Why a TLS handshake with a client failed.
    HandshakeFailure {
        /// The client speaks no version of TLS that the listener does.
        NoSharedVersion = "no_shared_version",
        /// The client has no cipher suite, group or signature in common with the listener and its certificates.
        NoSharedCipher = "no_shared_cipher",
        /// No certificate is for the name that the client asked for.
        UnknownName = "unknown_name",
        /// No protocol is in common (ALPN).
        NoSharedProtocol = "no_shared_protocol",
        /// The client had to show a certificate, and has none.
        NoCertificate = "no_certificate",
        /// The client's certificate is of an authority that isn't trusted here.
        UnknownCa = "unknown_ca",
        /// The client's certificate has expired.
        CertificateExpired = "certificate_expired",
        /// The client's certificate was revoked.
        CertificateRevoked = "certificate_revoked",
        /// The client's certificate is not good for another reason.
        BadCertificate = "bad_certificate",
        /// The client doesn't trust the listener's certificate, or refuses it for another reason.
        RefusedByClient = "refused_by_client",
        /// The client speaks HTTP without TLS.
        PlainHttp = "plain_http",
        /// What the client sent is no TLS.
        NotTls = "not_tls",
        /// The client breaks the protocol.
        Protocol = "protocol",
        /// It did not come in time.
        Timeout = "timeout",
        /// The client left, or reset.
        ClientLeft = "client_left",
    }
}

/// What a handshake that worked has agreed on: a label each of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeKind {
    /// Version 1.3, else 1.2.
    pub is_tls13: bool,
    /// An earlier session was resumed.
    pub is_resumed: bool,
}

impl HandshakeKind {
    const ALL: [Self; 4] = [
        Self { is_tls13: false, is_resumed: false },
        Self { is_tls13: false, is_resumed: true },
        Self { is_tls13: true, is_resumed: false },
        Self { is_tls13: true, is_resumed: true },
    ];

    fn index(self) -> usize {
        usize::from(self.is_tls13) * 2 + usize::from(self.is_resumed)
    }
}

/// What one worker counts of one listener.
#[derive(Debug, Default)]
pub struct HandshakeCounters {
    worked: [AtomicU64; HandshakeKind::ALL.len()],
    failed: [AtomicU64; HandshakeFailure::ALL.len()],
}

impl HandshakeCounters {
    pub fn worked(&self, kind: HandshakeKind) {
        self.worked[kind.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self, failure: HandshakeFailure) {
        self.failed[failure as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The sums over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandshakeTotals {
    worked: [u64; HandshakeKind::ALL.len()],
    failed: [u64; HandshakeFailure::ALL.len()],
}

impl HandshakeTotals {
    pub(super) fn add(&mut self, counters: &HandshakeCounters) {
        let pairs = self.worked.iter_mut().zip(&counters.worked).chain(self.failed.iter_mut().zip(&counters.failed));
        pairs.for_each(|(sum, counter)| *sum += counter.load(Ordering::Relaxed));
    }

    /// Those that worked, of each kind.
    pub fn worked(&self) -> impl Iterator<Item = (HandshakeKind, u64)> {
        HandshakeKind::ALL.into_iter().map(|kind| (kind, self.worked[kind.index()]))
    }

    /// Those that failed, by reason.
    pub fn failed(&self) -> impl Iterator<Item = (HandshakeFailure, u64)> {
        HandshakeFailure::ALL.iter().map(|&failure| (failure, self.failed[failure as usize]))
    }
}
