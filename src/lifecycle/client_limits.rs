//! The limits of each client of a listener: connections at once, and new connections a second.
//!
//! The time is an argument, except where a permit is dropped, which reads the clock. An IPv6 client is its /64 network,
//! since a host usually has all of one (RFC 6177).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Each has a lock of its own, so that workers seldom wait for each other.
const SHARDS: usize = 64;
/// Clients that one shard remembers, 65,536 in all. A flood from more addresses takes no more memory: new clients are
/// then admitted uncounted, as the limits are against clients with many connections, not against many clients.
const CLIENTS_PER_SHARD: usize = 1024;
/// The rate may be used in bursts: a client may make this long a time's connections at once.
const BURST: Duration = Duration::from_secs(1);

/// What one client may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at once; `None`: any number.
    pub max_connections: Option<NonZeroUsize>,
    /// New connections in a second; `None`: any number.
    pub connections_per_second: Option<NonZeroUsize>,
}

/// Why a client may not have another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRefusal {
    /// It has as many as it may.
    TooMany,
    /// It makes them too fast.
    TooFast,
}

/// The clients of one listener.
#[derive(Debug)]
pub struct Clients {
    started: Instant,
    /// Keyed: with chosen addresses nobody can fill one shard, whose new clients would be admitted uncounted.
    shard_of: RandomState,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    clients: HashMap<Key, Usage>,
    /// When clients that can be forgotten were last removed, since the start.
    swept_at: Duration,
}

/// What one client uses of its limits.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    active: usize,
    /// Until when its rate is used up, since the start: the theoretical arrival time of the generic cell rate algorithm
    /// (ITU-T I.371), which needs no timer.
    spent_until: Duration,
}

/// One connection of a client; dropping it gives it back.
#[derive(Debug)]
pub struct ClientPermit {
    clients: Arc<Clients>,
    key: Key,
}

/// An IPv6 address, or an IPv4 one as it is mapped; not a `u128`, which would double the size of what holds it.
type Key = [u64; 2];

impl Clients {
    pub fn new(now: Instant) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { started: now, shard_of: RandomState::new(), shards })
    }

    /// Counts a connection of `client`; `Ok(None)`: there is no limit, or no room to count it.
    ///
    /// # Errors
    /// Which limit it has reached.
    pub fn try_acquire(
        self: &Arc<Self>,
        client: IpAddr,
        limits: ClientLimits,
        now: Instant,
    ) -> Result<Option<ClientPermit>, ClientRefusal> {
        if limits == ClientLimits::default() {
            return Ok(None);
        }
        let key = key_of(client);
        let now = now.saturating_duration_since(self.started);
        let mut shard = self.shard(key);
        if !shard.clients.contains_key(&key) && !shard.has_room(now) {
            return Ok(None);
        }
        let usage = shard.clients.entry(key).or_default();
        if limits.max_connections.is_some_and(|max| usage.active >= max.get()) {
            return Err(ClientRefusal::TooMany);
        }
        if let Some(rate) = limits.connections_per_second {
            // Each connection uses up the rate for one interval; what reaches beyond a burst is too fast.
            let interval = BURST / u32::try_from(rate.get()).unwrap_or(u32::MAX);
            let spent_until = usage.spent_until.max(now) + interval;
            if spent_until > now + BURST {
                return Err(ClientRefusal::TooFast);
            }
            usage.spent_until = spent_until;
        }
        usage.active += 1;
        Ok(Some(ClientPermit { clients: self.clone(), key }))
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.shard_of.hash_one(key) % SHARDS as u64).expect("fewer than 64");
        // No panic can leave a value half changed, so a poisoned lock's are as good as any.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Whether there is room for one more client. A full shard is swept first, but at most once in [`BURST`], within
    /// which no rate recovers wholly: a flood must not have it swept for each connection.
    fn has_room(&mut self, now: Duration) -> bool {
        if self.clients.len() >= CLIENTS_PER_SHARD && now.saturating_sub(self.swept_at) >= BURST {
            self.clients.retain(|_, usage| usage.active > 0 || usage.spent_until > now);
            self.swept_at = now;
        }
        self.clients.len() < CLIENTS_PER_SHARD
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.key);
        if let Some(usage) = shard.clients.get_mut(&self.key) {
            usage.active -= 1;
            // A client whose rate is used up is remembered until it has recovered; a sweep removes it.
            if usage.active == 0 && usage.spent_until <= self.clients.started.elapsed() {
                shard.clients.remove(&self.key);
            }
        }
    }
}

fn key_of(client: IpAddr) -> Key {
    match client.to_canonical() {
        IpAddr::V4(address) => [0, address.to_bits().into()],
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments().map(u64::from);
            // The bit keeps ::/64, which has the IPv4 addresses' first half, apart from them.
            [a << 48 | b << 32 | c << 16 | d, 1 << 32]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn limits(max_connections: usize, connections_per_second: usize) -> ClientLimits {
        ClientLimits {
            max_connections: NonZeroUsize::new(max_connections),
            connections_per_second: NonZeroUsize::new(connections_per_second),
        }
    }

    #[test]
    fn connections_given_back_can_be_taken_again() {
        let now = Instant::now();
        let clients = Clients::new(now);
        let first = clients.try_acquire(CLIENT, limits(1, 0), now);
        assert_eq!(clients.try_acquire(CLIENT, limits(1, 0), now).err(), Some(ClientRefusal::TooMany));
        assert!(
            clients.try_acquire("192.0.2.2".parse().expect("an address"), limits(1, 0), now).is_ok(),
            "another client"
        );
        drop(first);
        assert!(clients.try_acquire(CLIENT, limits(1, 0), now).is_ok());
    }

    #[test]
    fn a_second_gives_as_many_as_the_rate_says_and_no_more() {
        let now = Instant::now();
        let clients = Clients::new(now);
        let made = |at| (0..20).filter(|_| clients.try_acquire(CLIENT, limits(0, 5), at).is_ok()).count();
        assert_eq!(made(now), 5);
        assert_eq!(made(now + Duration::from_millis(400)), 2);
        assert_eq!(made(now + Duration::from_secs(10)), 5, "what was not used is not saved up");
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let now = Instant::now();
        let clients = Clients::new(now);
        let acquire = |text: &str| clients.try_acquire(text.parse().expect("an address"), limits(1, 0), now);
        let _first = acquire("2001:db8::1");
        assert!(acquire("2001:db8::2").is_err());
        assert!(acquire("2001:db8:0:1::1").is_ok());
        let _mapped = acquire("192.0.2.1");
        assert!(acquire("::ffff:192.0.2.1").is_err(), "the same IPv4 client");
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_than_the_table() {
        let now = Instant::now();
        let clients = Clients::new(now);
        let mut permits = Vec::new();
        for number in 0..200_000u32 {
            permits.push(clients.try_acquire(std::net::Ipv4Addr::from_bits(number).into(), limits(1, 0), now));
        }
        let known = |clients: &Clients| -> usize {
            clients.shards.iter().map(|shard| shard.lock().expect("nobody panics").clients.len()).sum()
        };
        assert!(permits.iter().all(Result::is_ok));
        assert!(known(&clients) <= SHARDS * CLIENTS_PER_SHARD);
        drop(permits);
        assert_eq!(known(&clients), 0);
    }
}
