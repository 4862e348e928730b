//! The queue of clients that wait for room on a pool's backends.
//!
//! Knows nothing of the backends: a client that is called has to look by itself whether one has room for it, and passes
//! the call on where none has. So a call goes down the queue until somebody can use it, and is over at the queue's end:
//! what one client can't use keeps no other waiting, and no call goes round for ever.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The clients that wait, in the order of their coming. Connections that find room at once only read a count.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// As many as there are places; changed with the lock held.
    waiting: AtomicUsize,
    places: Mutex<Places>,
}

/// By ticket. Each operation costs the logarithm of the queue's length.
#[derive(Debug, Default)]
struct Places {
    last_ticket: u64,
    all: BTreeMap<u64, Place>,
    /// Whom a call may go to: all but those that are called and have not begun to look.
    uncalled: BTreeSet<u64>,
    /// Whoever came while others were called, and has not looked since: a connection may have ended after it found all
    /// backends full and before it was in the queue, and such an end calls nobody.
    owed_a_look: BTreeSet<u64>,
    /// Calls under way: given, and neither used nor passed on nor over.
    calls: usize,
}

#[derive(Debug, Default)]
struct Place {
    is_called: bool,
    waker: Option<Waker>,
}

/// A client's place in the queue. Dropping it leaves the queue, and passes on a call that was not followed.
pub struct QueueSlot<'a> {
    queue: &'a Queue,
    ticket: u64,
    is_first: bool,
    /// Called, and looking for room.
    is_looking: Cell<bool>,
}

impl Queue {
    /// The last place of a queue of at most `length`; `None`: it is full. If nobody is called, the client is at once.
    pub(super) fn take_place(&self, length: usize) -> Option<QueueSlot<'_>> {
        let mut places = self.places();
        if places.all.len() >= length {
            return None;
        }
        // The other half of `Backend::release`, which gives back its connection and then reads this count, while a
        // client adds itself to the count and then looks for room. SeqCst puts all four in one order: either the end of
        // the connection sees that somebody waits, or the client sees that the connection has ended. With less, each
        // could miss the other, and the client would sleep beside a free backend.
        let is_first = self.waiting.fetch_add(1, Ordering::SeqCst) == 0;
        let ticket = places.enter();
        Some(QueueSlot { queue: self, ticket, is_first, is_looking: Cell::new(false) })
    }

    /// Clients that wait now.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether somebody is about to look for room, whom a client that comes now would overtake.
    pub(super) fn has_called(&self) -> bool {
        self.waiting() > 0 && self.places().calls > 0
    }

    /// There is room: calls the first who is not called yet.
    pub(super) fn call_one(&self) {
        // SeqCst: the other half of `take_place`.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.places().call_from(0);
        }
    }

    /// What all of them found may not hold any more: calls everybody.
    pub(super) fn call_all(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let mut places = self.places();
            while places.call_from(0) {}
        }
    }

    /// A thread that panicked while it held the lock has at worst lost a call, and every wait has a limit.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn enter(&mut self) -> u64 {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.all.insert(ticket, Place::default());
        self.uncalled.insert(ticket);
        self.owed_a_look.insert(ticket);
        self.settle();
        ticket
    }

    /// Calls the first from `ticket` on who is not called; `false`: there is none.
    fn call_from(&mut self, ticket: u64) -> bool {
        let Some(ticket) = self.uncalled.range(ticket..).next().copied() else { return false };
        self.uncalled.remove(&ticket);
        self.owed_a_look.remove(&ticket);
        self.calls += 1;
        let place = self.all.get_mut(&ticket).expect("who is not called is in the queue");
        place.is_called = true;
        if let Some(waker) = place.waker.take() {
            waker.wake();
        }
        true
    }

    /// A call is used or over. Once no other is under way, whoever is owed a look gets it.
    fn end_call(&mut self) {
        self.calls -= 1;
        self.settle();
    }

    fn settle(&mut self) {
        if self.calls == 0
            && let Some(ticket) = self.owed_a_look.first().copied()
        {
            self.call_from(ticket);
        }
    }
}

impl QueueSlot<'_> {
    /// Whether the queue was empty.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Waits for a call. After it the client looks for room, and then leaves the queue or passes the call on. Safe to
    /// cancel.
    pub async fn called(&self) {
        poll_fn(|cx| {
            let mut places = self.queue.places();
            let place = places.all.get_mut(&self.ticket).expect("its place is kept until it is dropped");
            if !mem::take(&mut place.is_called) {
                place.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            // From now on, so that room which comes while it looks is not missed.
            places.uncalled.insert(self.ticket);
            self.is_looking.set(true);
            Poll::Ready(())
        })
        .await;
    }

    /// There was nothing for this client: the next one behind it may fare better.
    pub fn pass_on(&self) {
        if self.is_looking.take() {
            let mut places = self.queue.places();
            places.call_from(self.ticket + 1);
            places.end_call();
        }
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        let mut places = self.queue.places();
        self.queue.waiting.fetch_sub(1, Ordering::AcqRel);
        places.uncalled.remove(&self.ticket);
        places.owed_a_look.remove(&self.ticket);
        if places.all.remove(&self.ticket).is_some_and(|place| place.is_called) {
            places.call_from(self.ticket);
            places.end_call();
        }
        if self.is_looking.get() {
            places.end_call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the client is called now; it then looks.
    fn is_called(slot: &QueueSlot<'_>) -> bool {
        let mut called = std::pin::pin!(slot.called());
        called.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_ready()
    }

    fn looks_in_vain(slot: &QueueSlot<'_>) {
        assert!(is_called(slot), "it is called");
        slot.pass_on();
    }

    #[test]
    fn a_call_goes_down_the_queue_and_is_over_at_its_end() {
        let queue = Queue::default();
        let slots: Vec<_> = (0..3).filter_map(|_| queue.take_place(3)).collect();
        assert!(queue.take_place(3).is_none());
        slots.iter().for_each(looks_in_vain);
        assert!(!queue.has_called());
        queue.call_one();
        slots.iter().for_each(looks_in_vain);
        assert!(!queue.has_called() && !slots.iter().any(is_called));
    }

    #[test]
    fn who_comes_while_another_is_called_looks_after_it() {
        let queue = Queue::default();
        let first = queue.take_place(9).expect("room");
        assert!(is_called(&first));
        let second = queue.take_place(9).expect("room");
        assert!(!is_called(&second) && queue.has_called());
        drop(first);
        assert!(is_called(&second), "the first took one place, and there may be another");
    }

    #[test]
    fn room_that_comes_while_a_client_looks_is_not_missed() {
        let queue = Queue::default();
        let only = queue.take_place(9).expect("room");
        assert!(is_called(&only));
        queue.call_one();
        only.pass_on();
        looks_in_vain(&only);
        assert!(!queue.has_called());
    }

    #[test]
    fn whoever_leaves_passes_its_call_on_and_the_order_stays() {
        let queue = Queue::default();
        let mut slots: Vec<_> = (0..4).filter_map(|_| queue.take_place(9)).collect();
        slots.iter().for_each(looks_in_vain);
        queue.call_one();
        drop(slots.remove(0));
        looks_in_vain(&slots[0]);
        looks_in_vain(&slots[1]);
        looks_in_vain(&slots[2]);
        queue.call_one();
        queue.call_one();
        assert_eq!(slots.iter().map(is_called).collect::<Vec<_>>(), [true, true, false]);
        queue.call_all();
        assert_eq!(slots.iter().map(is_called).collect::<Vec<_>>(), [true; 3]);
        drop(slots);
        assert!(!queue.has_called() && queue.waiting() == 0);
    }
}
