//! What a worker answers to operators: which connections it has, and how many of them it has ended.
//!
//! Looks at all of its connections, of which there may be tens of thousands, a few at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::lifecycle::{Inquiry, Listing, OpenConnection, Page, Place, Selection, Sort};
use crate::net::Peer;

use super::client_facts::ClientFacts;
use super::connections::Connection;
use super::worker::Worker;

/// After so many looks at connections the worker's other tasks have their turn: that is some 50 microseconds.
const LOOKS_AT_ONCE: usize = 256;
/// After so many turns of its own, an inquiry leaves the worker's core to others for a while: a worker that never rests
/// makes those wait that its clients talk to.
const TURNS_AT_ONCE: usize = 8;
const PAUSE: Duration = Duration::from_millis(1);
/// Of the time of a look: to copy a connection's names, and to end it with its sockets.
const LOOKS_OF_A_COPY: usize = 4;
const LOOKS_OF_AN_END: usize = 128;

/// Answers for the connections of one worker, until dropped.
pub async fn answer_inquiries(worker: Rc<Worker>, mut inquiries: UnboundedReceiver<Inquiry>) {
    while let Some(inquiry) = inquiries.recv().await {
        // Whoever asked may have left.
        match inquiry {
            Inquiry::List { selection, page, epoch, answer } => {
                if !answer.is_closed() {
                    let _ = answer.send(list(&worker, &selection, page, epoch).await);
                }
            }
            Inquiry::End { selection, answer } => {
                let _ = answer.send(end(&worker, &selection).await);
            }
        }
    }
}

async fn list(worker: &Worker, selection: &Selection, page: Page, epoch: Instant) -> Listing {
    let mut listing = Listing::default();
    // The last one of the page on top.
    let mut best = BinaryHeap::new();
    look_at(worker, |index, connection| {
        let place = place_of(connection, page.sort, epoch);
        if is_meant(connection, selection) && page.after.is_none_or(|after| place < after) {
            listing.matched += 1;
            best.push((Reverse(place), index));
            if best.len() > page.limit {
                best.pop();
            }
        }
        1
    })
    .await;
    for some in best.into_vec().chunks(LOOKS_AT_ONCE / LOOKS_OF_A_COPY) {
        listing.connections.extend(some.iter().filter_map(|(Reverse(place), index)| describe(worker, *index, *place)));
        yield_now().await;
    }
    listing
}

/// Those that were in the list before it was asked. Once it answers, they are counted.
async fn end(worker: &Worker, selection: &Selection) -> usize {
    let (asked_at, mut ended) = (Instant::now(), 0);
    look_at(worker, |_, connection| {
        if connection.account().accepted_at > asked_at || !is_meant(connection, selection) {
            return 1;
        }
        ended += usize::from(connection.end_by_operator());
        LOOKS_OF_AN_END
    })
    .await;
    ended
}

/// Calls `look` with all connections and their indices; it returns what that took, in looks.
async fn look_at(worker: &Worker, mut look: impl FnMut(usize, &Connection) -> usize) {
    let (mut next, mut turns) = (Some(0), 0);
    while let Some(first) = next {
        next = look_at_some(worker, first, &mut look);
        turns += 1;
        if turns % TURNS_AT_ONCE == 0 { sleep(PAUSE).await } else { yield_now().await }
    }
}

/// Looks at those from the index `first` on, and returns where to go on.
fn look_at_some(worker: &Worker, first: usize, look: &mut impl FnMut(usize, &Connection) -> usize) -> Option<usize> {
    let mut looks = 0;
    for (index, connection) in worker.connections.all().iter().enumerate().skip(first) {
        if looks >= LOOKS_AT_ONCE {
            return Some(index);
        }
        looks += connection.as_ref().map_or(1, |connection| look(index, connection));
    }
    None
}

fn is_meant(connection: &Connection, selection: &Selection) -> bool {
    connection.account().with_traits(|traits| selection.fits(traits))
}

fn place_of(connection: &Connection, sort: Sort, epoch: Instant) -> Place {
    let account = connection.account();
    let since_epoch = |at: Instant| u64::try_from(at.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX);
    let rank = match sort {
        Sort::Newest => since_epoch(account.accepted_at),
        Sort::Oldest => u64::MAX - since_epoch(account.accepted_at),
        Sort::Bytes => account.tally.bytes_in() + account.tally.bytes_out(),
        Sort::Idle => u64::MAX - since_epoch(connection.idle_timer.last_active()),
    };
    Place { rank, id: account.id }
}

/// `None`: it has ended.
fn describe(worker: &Worker, index: usize, place: Place) -> Option<OpenConnection> {
    let connections = worker.connections.all();
    // At its index there may be another one by now.
    let connection = connections[index].as_ref().filter(|connection| connection.account().id == place.id)?;
    let account = connection.account();
    let owned = |name: Option<&str>| name.map(str::to_owned);
    let (pool, backend) = account.with_traits(|traits| (owned(traits.pool), owned(traits.backend)));
    Some(OpenConnection {
        place,
        client: match account.peer() {
            Peer::Tcp(address) => Some(address),
            Peer::Unix => None,
        },
        server_name: owned(account.facts().and_then(ClientFacts::server_name)),
        listener: account.frontend.name().to_owned(),
        is_http: account.frontend.http.is_some(),
        pool,
        backend,
        age: account.accepted_at.elapsed(),
        idle: connection.idle_timer.idle(),
        bytes_in: account.tally.bytes_in(),
        bytes_out: account.tally.bytes_out(),
        requests: account.requests().into(),
    })
}
