//! Tickets, by which clients resume their sessions: sealed by a key of this process that is replaced in time, so that a
//! stolen one opens little. All workers share it, and an upgrade hands it on.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

/// A key seals for so long, and opens for as long again.
const PERIOD: Duration = Duration::from_secs(6 * 3600);
/// What clients are told: every ticket can be opened until then.
const LIFETIME_SECONDS: u32 = 6 * 3600;

const NAME_LEN: usize = 16;
const SECRET_LEN: usize = 32;
const HEAD_LEN: usize = NAME_LEN + NONCE_LEN;

pub(super) struct Ticketer {
    keys: ArcSwap<Keys>,
}

#[derive(Clone)]
struct Keys {
    current: Arc<TicketKey>,
    /// When `current` began.
    since: Instant,
    previous: Option<Arc<TicketKey>>,
}

struct TicketKey {
    /// Each ticket begins with it.
    name: [u8; NAME_LEN],
    /// For another process.
    secret: [u8; SECRET_LEN],
    key: LessSafeKey,
}

impl Ticketer {
    pub(super) fn new() -> Self {
        let keys = Keys { current: Arc::new(TicketKey::new()), since: Instant::now(), previous: None };
        Self { keys: ArcSwap::from_pointee(keys) }
    }

    /// Its keys, for the process that takes over.
    pub(super) fn hand_on(&self, now: Instant) -> Vec<u8> {
        let keys = self.keys(now);
        let age = now.saturating_duration_since(keys.since).as_secs();
        let mut handed_on = age.to_be_bytes().to_vec();
        for key in [Some(&keys.current), keys.previous.as_ref()].into_iter().flatten() {
            handed_on.extend_from_slice(&key.name);
            handed_on.extend_from_slice(&key.secret);
        }
        handed_on
    }

    /// With the keys of the process before; `None`: there are none.
    pub(super) fn continuing(handed_on: &[u8], now: Instant) -> Option<Self> {
        let (age, keys) = handed_on.split_first_chunk()?;
        let mut keys = keys.chunks_exact(NAME_LEN + SECRET_LEN).filter_map(|key| {
            let (name, secret) = key.split_first_chunk()?;
            Some(Arc::new(TicketKey::of(*name, *secret.first_chunk()?)))
        });
        let since = now.checked_sub(Duration::from_secs(u64::from_be_bytes(*age)))?;
        let keys = Keys { current: keys.next()?, since, previous: keys.next() };
        Some(Self { keys: ArcSwap::from_pointee(keys) })
    }

    /// The keys as they are now. Called for every ticket, so that none is older than it may be.
    fn keys(&self, now: Instant) -> Arc<Keys> {
        let keys = self.keys.load_full();
        if now.saturating_duration_since(keys.since) < PERIOD {
            return keys;
        }
        let next = Arc::new(keys.next(now));
        // Of several workers at once, one replaces them.
        let found = self.keys.compare_and_swap(&keys, next.clone());
        if Arc::ptr_eq(&found, &keys) { next } else { found.clone() }
    }

    fn seal(&self, message: &[u8], now: Instant) -> Option<Vec<u8>> {
        self.keys(now).current.seal(message)
    }

    fn open(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let keys = self.keys(now);
        let (name, sealed) = ticket.split_at_checked(NAME_LEN)?;
        // The names are no secret: every ticket shows one.
        let key = [Some(&keys.current), keys.previous.as_ref()].into_iter().flatten().find(|key| key.name == name)?;
        key.open(sealed)
    }
}

impl Keys {
    fn next(&self, now: Instant) -> Self {
        let is_recent = now.saturating_duration_since(self.since) < PERIOD * 2;
        let previous = is_recent.then(|| self.current.clone());
        Self { current: Arc::new(TicketKey::new()), since: now, previous }
    }
}

impl TicketKey {
    fn new() -> Self {
        let (mut name, mut secret) = ([0; NAME_LEN], [0; SECRET_LEN]);
        random(&mut name).and_then(|()| random(&mut secret)).expect("the kernel gives random bytes");
        Self::of(name, secret)
    }

    fn of(name: [u8; NAME_LEN], secret: [u8; SECRET_LEN]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &secret).expect("the length is that of the algorithm");
        Self { name, secret, key: LessSafeKey::new(key) }
    }

    /// Name, nonce, sealed message. The nonce is random: in six hours a key seals far fewer than 2^32 (NIST SP 800-38D,
    /// 8.3).
    fn seal(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut ticket = Vec::with_capacity(HEAD_LEN + message.len() + MAX_TAG_LEN);
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(message);
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(self.name));
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, &mut ticket[HEAD_LEN..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut message = sealed.to_vec();
        let length = self.key.open_in_place(nonce, Aad::from(self.name), &mut message).ok()?.len();
        message.truncate(length);
        Some(message)
    }
}

fn random(bytes: &mut [u8]) -> Option<()> {
    SystemRandom::new().fill(bytes).ok()
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, Instant::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, Instant::now())
    }
}

impl fmt::Debug for Ticketer {
    /// Without its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_can_be_opened_for_its_lifetime_and_not_much_longer() {
        let (ticketer, start) = (Ticketer::new(), Instant::now());
        let late = start + PERIOD - Duration::from_secs(60);
        let ticket = ticketer.seal(b"session", late).expect("random bytes");
        let end = late + Duration::from_secs(LIFETIME_SECONDS.into()) - Duration::from_secs(1);
        assert_eq!(ticketer.open(&ticket, end).as_deref(), Some(&b"session"[..]));
        assert_eq!(ticketer.open(&ticket, end + PERIOD), None);
        // Nobody came for a day: its key is too old to be kept as the previous one.
        let ticket = ticketer.seal(b"session", end + PERIOD).expect("random bytes");
        assert_eq!(ticketer.open(&ticket, end + PERIOD * 4), None);
    }

    #[test]
    fn the_next_process_opens_what_the_one_before_has_sealed() {
        let (ticketer, start) = (Ticketer::new(), Instant::now());
        let old = ticketer.seal(b"old", start).expect("random bytes");
        let later = start + PERIOD;
        let new = ticketer.seal(b"new", later).expect("random bytes");
        let next = Ticketer::continuing(&ticketer.hand_on(later), later).expect("keys");
        assert_eq!(next.open(&old, later).as_deref(), Some(&b"old"[..]));
        assert_eq!(next.open(&new, later).as_deref(), Some(&b"new"[..]));
        assert_eq!(next.open(&old, later + PERIOD), None, "its key is as old as it was");
        assert!(Ticketer::continuing(b"", later).is_none() && Ticketer::continuing(&[0; 20], later).is_none());
    }

    #[test]
    fn a_changed_or_foreign_ticket_is_none() {
        let (ticketer, now) = (Ticketer::new(), Instant::now());
        let ticket = ticketer.seal(b"session", now).expect("random bytes");
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(ticketer.open(&changed, now), None, "byte {index}");
            assert_eq!(ticketer.open(&ticket[..index], now), None, "of {index} bytes");
        }
        assert_eq!(Ticketer::new().open(&ticket, now), None);
    }
}
