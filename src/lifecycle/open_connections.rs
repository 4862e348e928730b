//! What operators ask of the open connections of all workers: which there are, and to end some. The questions go to the
//! workers as messages, and each answers for its own.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection_id::ConnectionId;

/// On one page: what each worker keeps of its connections until it has looked at all of them.
pub const MOST_LISTED: usize = 1000;

/// Which connections are meant: those that fit all that is given. The default: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub id: Option<ConnectionId>,
    /// Those of clients of this network; a client of a unix socket is in none.
    pub client: Option<IpNet>,
    pub listener: Option<String>,
    pub pool: Option<String>,
    /// The backend's address, as it is shown.
    pub backend: Option<String>,
}

/// What a selection goes by.
#[derive(Clone, Copy, Debug)]
pub struct Traits<'a> {
    pub id: ConnectionId,
    pub client: Option<IpAddr>,
    pub listener: &'a str,
    pub pool: Option<&'a str>,
    pub backend: Option<&'a str>,
}

impl Selection {
    pub fn fits(&self, connection: Traits<'_>) -> bool {
        let is = |wanted: &Option<String>, actual: Option<&str>| wanted.is_none() || wanted.as_deref() == actual;
        self.id.is_none_or(|id| id == connection.id)
            && is(&self.listener, Some(connection.listener))
            && is(&self.pool, connection.pool)
            && is(&self.backend, connection.backend)
            && self.client.is_none_or(|network| connection.client.is_some_and(|client| contains(network, client)))
    }
}

/// An IPv4 address is one, mapped into IPv6 or not.
fn contains(network: IpNet, client: IpAddr) -> bool {
    network.contains(&client.to_canonical()) || network.contains(&client)
}

labels! {
    /// Which connections come first.
    Sort {
        /// Those that were accepted last.
        Newest = "newest",
        /// Those that were accepted first.
        Oldest = "oldest",
        /// Those that moved the most bytes, both ways together.
        Bytes = "bytes",
        /// Those that were without a byte for the longest.
        Idle = "idle",
    }
}

/// A connection's place in a list, which begins with the greatest. No two connections have the same.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// By what the list is sorted.
    pub rank: u64,
    pub id: ConnectionId,
}

impl Place {
    /// From its text.
    pub fn parse(text: &str) -> Option<Self> {
        let (rank, id) = text.split_once('-')?;
        Some(Self { rank: u64::from_str_radix(rank, 16).ok()?, id: id.parse().ok()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.rank, self.id)
    }
}

/// A part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub sort: Sort,
    /// The last place of the page before this one; `None`: this is the first.
    pub after: Option<Place>,
    /// 1 to [`MOST_LISTED`].
    pub limit: usize,
}

/// One connection, as it was when its worker looked at it.
#[derive(Clone, Debug)]
pub struct OpenConnection {
    pub place: Place,
    /// `None`: of a unix socket.
    pub client: Option<SocketAddr>,
    /// That the client asked for by TLS.
    pub server_name: Option<String>,
    pub listener: String,
    /// Of mode http.
    pub is_http: bool,
    /// `None`: it is not chosen yet.
    pub pool: Option<String>,
    /// `None`: it has none now.
    pub backend: Option<String>,
    pub age: Duration,
    /// Since its last byte.
    pub idle: Duration,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
    /// 0 in mode tcp.
    pub requests: u64,
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct Listing {
    /// Connections that fit, on this page and after it.
    pub matched: usize,
    pub connections: Vec<OpenConnection>,
}

/// What a worker is asked.
#[derive(Clone, Debug)]
pub enum Inquiry {
    /// Its part of a page.
    List { selection: Arc<Selection>, page: Page, epoch: Instant, answer: UnboundedSender<Listing> },
    /// To end connections that it has now, and how many those were.
    End { selection: Arc<Selection>, answer: UnboundedSender<usize> },
}

/// The open connections of all workers.
#[derive(Debug)]
pub struct OpenConnections {
    workers: Vec<UnboundedSender<Inquiry>>,
    /// Before the first connection: what ranks are counted from.
    epoch: Instant,
    /// One list at a time, and one order to end some: that bounds what workers are asked, and hold for answers.
    lists: Semaphore,
    ends: Arc<Semaphore>,
}

impl OpenConnections {
    /// Also returns the ends at which the workers receive. The channels need no bound: one question of each kind is
    /// under way at a time, and those whose asker has left are few.
    pub fn new(workers: usize, epoch: Instant) -> (Self, Vec<UnboundedReceiver<Inquiry>>) {
        let (workers, inquiries) = (0..workers).map(|_| unbounded_channel()).unzip();
        (Self { workers, epoch, lists: Semaphore::new(1), ends: Arc::new(Semaphore::new(1)) }, inquiries)
    }

    /// One page of those that fit.
    pub async fn list(&self, selection: Selection, page: Page) -> Listing {
        let _turn = self.lists.acquire().await;
        let (selection, epoch) = (Arc::new(selection), self.epoch);
        let mut listing = Listing::default();
        let ask = |answer| Inquiry::List { selection: selection.clone(), page, epoch, answer };
        for part in self.ask(ask).await {
            listing.matched += part.matched;
            listing.connections.extend(part.connections);
        }
        listing.connections.sort_unstable_by_key(|connection| Reverse(connection.place));
        listing.connections.truncate(page.limit);
        listing
    }

    /// Waits until nobody else ends connections, for as long as what is returned exists.
    pub async fn turn_to_end(&self) -> OwnedSemaphorePermit {
        self.ends.clone().acquire_owned().await.expect("it is never closed")
    }

    /// Resets those that fit, and says how many there were. Those that come meanwhile stay.
    pub async fn end(&self, selection: &Selection) -> usize {
        let selection = Arc::new(selection.clone());
        self.ask(|answer| Inquiry::End { selection: selection.clone(), answer }).await.into_iter().sum()
    }

    /// The answers of all workers. One that has ended has no connections.
    async fn ask<T>(&self, inquiry: impl Fn(UnboundedSender<T>) -> Inquiry) -> Vec<T> {
        let (answer, mut answers) = unbounded_channel();
        for worker in &self.workers {
            let _ = worker.send(inquiry(answer.clone()));
        }
        drop(answer);
        let mut all = Vec::with_capacity(self.workers.len());
        while let Some(answer) = answers.recv().await {
            all.push(answer);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_fits_what_has_all_that_it_names() {
        let connection = Traits {
            id: "1f".parse().expect("an id"),
            client: Some("10.1.2.3".parse().expect("an address")),
            listener: "web",
            pool: Some("app"),
            backend: None,
        };
        let network = |text: &str| Some(text.parse().expect("a network"));
        let all = Selection::default();
        assert!(all.fits(connection));
        assert!(Selection { id: Some(connection.id), pool: Some("app".to_owned()), ..all.clone() }.fits(connection));
        assert!(
            !Selection { pool: Some("app".to_owned()), listener: Some("ssh".to_owned()), ..all.clone() }
                .fits(connection)
        );
        assert!(!Selection { backend: Some("10.0.0.1:80".to_owned()), ..all.clone() }.fits(connection));
        let of_network = Selection { client: network("10.1.0.0/16"), ..all.clone() };
        assert!(of_network.fits(connection));
        assert!(of_network.fits(Traits { client: "::ffff:10.1.9.9".parse().ok(), ..connection }));
        assert!(!of_network.fits(Traits { client: "10.2.0.0".parse().ok(), ..connection }));
        assert!(!of_network.fits(Traits { client: None, ..connection }));
    }
}
