//! Small sends of one turn of a worker, handed to the kernel together: io_uring(7).
//!
//! A send to a process on the same machine wakes it, and it takes the processor from us as soon as the call returns;
//! it serves one message, sleeps, and is woken by the next send. Many sends in one call save most of these switches.
//! Measured: docs/explanation/performance.md.
//!
//! A send never waits (MSG_DONTWAIT), so the kernel is through with all of them, and with their bytes, when the call
//! returns. It reports only those that a socket did not take whole. Their rest is kept here until [`Stream`] sends it.
//!
//! [`Stream`]: super::stream::Stream

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// A longer send goes by itself: the copy that is made here would cost more than is gained.
const MAX_SEND_BYTES: usize = 16 * 1024;
/// More are handed over before the turn ends.
const MAX_SENDS: u32 = 256;
const MAX_BYTES: usize = 512 * 1024;
/// No socket's buffer is larger by default.
const PROBE_BYTES: usize = 64 * 1024 * 1024;
/// What was sent is there long before.
const PROBE_TIME: Duration = Duration::from_secs(1);
/// Descriptors of one worker's ring.
pub const RING_FILES_PER_WORKER: u64 = 1;

thread_local! {
    /// This thread's. `None`: all sends go by themselves.
    static RING: RefCell<Option<SendRing>> = const { RefCell::new(None) };
}

/// Which turn of this thread it is, from 1; wraps. An old one that is taken for this one costs a call.
pub(super) type Turn = u16;

/// Whether [`open_send_ring`] would work, and sends go as they should: some are tried on the loopback interface.
///
/// # Errors
/// As there; or what was sent did not arrive, or what was not taken was not reported.
pub fn probe_send_ring() -> io::Result<()> {
    SendRing::open()?.probe()
}

/// From now on small sends of this thread are collected, as long as [`hand_over_each_turn`] runs on it. The ring is
/// counted in `working` while it works.
///
/// # Errors
/// The kernel has no io_uring, or an old one, forbids it, or has no memory or file for it.
pub fn open_send_ring(working: &Arc<AtomicUsize>) -> io::Result<()> {
    RING.set(Some(SendRing { working: Some(Working::new(working)), ..SendRing::open()? }));
    Ok(())
}

/// Hands over what the tasks before this one have collected, whenever there is something; for ever.
pub async fn hand_over_each_turn() {
    poll_fn(|cx| {
        with_ring(|ring| ring.at_end = Some(cx.waker().clone()));
        hand_over();
        Poll::<()>::Pending
    })
    .await;
}

/// Collects a send of all `bytes`, to be handed over at the end of the turn that is returned; `None`: it has to go by
/// itself. If the socket doesn't take all of them, the task of `cx` is woken. See [`take_refused`].
pub(super) fn collect(cx: &Context<'_>, socket: &impl AsRawFd, bytes: &[u8]) -> Option<Turn> {
    if bytes.len() > MAX_SEND_BYTES {
        return None;
    }
    if with_ring(|ring| ring.has_room_for(bytes.len())) == Some(false) {
        hand_over();
    }
    with_ring(|ring| ring.collect(cx.waker(), socket.as_raw_fd(), bytes))?
}

/// Whether it is still that `turn`: what was collected in it is still to be handed over.
pub(super) fn is_turn(turn: Turn) -> bool {
    with_ring(|ring| ring.turn == turn) == Some(true)
}

/// Ends the turn: hands over all that was collected in it.
pub(super) fn hand_over() {
    let Some(mut sends) = with_ring(SendRing::hand_over) else { return };
    // A waker may be a task's last trace: what it then drops must find the ring free.
    for Collected { task, is_refused, .. } in sends.drain(..) {
        if is_refused {
            task.wake();
        }
    }
    with_ring(|ring| {
        if ring.sends.is_empty() {
            ring.sends = sends;
        }
    });
}

/// What the socket did not take of what was handed over. Whoever takes it, sends it, or keeps it again.
pub(super) fn take_refused(socket: &impl AsRawFd) -> Option<Refused> {
    with_ring(|ring| if ring.refused.is_empty() { None } else { ring.refused.remove(&socket.as_raw_fd()) })?
}

/// Why the socket has failed, if a send has told. The kernel tells it once: later calls find an ordinary end.
pub(super) fn failure_of(socket: &impl AsRawFd) -> Option<Errno> {
    with_ring(|ring| match ring.refused.get(&socket.as_raw_fd()) {
        Some(Refused::Failed(error)) => Some(*error),
        _ => None,
    })?
}

/// Until [`take_refused`] asks for it.
pub(super) fn keep_refused(socket: &impl AsRawFd, refused: Refused) {
    with_ring(|ring| ring.refused.insert(socket.as_raw_fd(), refused));
}

fn with_ring<T>(operation: impl FnOnce(&mut SendRing) -> T) -> Option<T> {
    RING.try_with(|ring| ring.borrow_mut().as_mut().map(operation)).ok()?
}

/// What is left of a send.
#[derive(Debug)]
pub(super) enum Refused {
    /// The socket has no room for these bytes.
    Full(Vec<u8>),
    /// The socket has failed.
    Failed(Errno),
}

struct SendRing {
    /// The error: it has failed, and sends go by themselves.
    uring: io::Result<IoUring>,
    sends: Vec<Collected>,
    /// Of all `sends`, one behind the other.
    bytes: Vec<u8>,
    turn: Turn,
    refused: HashMap<RawFd, Refused>,
    /// The task that hands over at the turn's end.
    at_end: Option<Waker>,
    working: Option<Working>,
}

/// A ring that works, counted.
struct Working(Arc<AtomicUsize>);

impl Working {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Collected {
    fd: RawFd,
    /// Where its bytes are in [`SendRing::bytes`].
    range: Range<usize>,
    task: Waker,
    is_refused: bool,
}

impl SendRing {
    fn open() -> io::Result<Self> {
        // SINGLE_ISSUER came with Linux 6.0, after all else that is used here.
        let uring = IoUring::builder().setup_single_issuer().setup_submit_all().build(MAX_SENDS)?;
        let (sends, bytes) = (Vec::with_capacity(MAX_SENDS as usize), Vec::with_capacity(MAX_BYTES));
        Ok(Self { uring: Ok(uring), sends, bytes, turn: 1, refused: HashMap::new(), at_end: None, working: None })
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.sends.len() < MAX_SENDS as usize && self.bytes.len() + bytes <= MAX_BYTES
    }

    fn collect(&mut self, task: &Waker, fd: RawFd, bytes: &[u8]) -> Option<Turn> {
        self.uring.as_ref().ok()?;
        let at_end = self.at_end.as_ref()?;
        if self.sends.is_empty() {
            at_end.wake_by_ref();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.sends.push(Collected { fd, range: start..self.bytes.len(), task: task.clone(), is_refused: false });
        Some(self.turn)
    }

    /// Returns what was collected, with marks at what was refused.
    fn hand_over(&mut self) -> Vec<Collected> {
        self.turn = self.turn.checked_add(1).unwrap_or(1);
        let mut sends = mem::take(&mut self.sends);
        if let Ok(uring) = &mut self.uring
            && !sends.is_empty()
        {
            let submitted = submit(uring, &sends, &self.bytes);
            for refusal in uring.completion() {
                let send = &mut sends[usize::try_from(refusal.user_data()).expect("an index into them")];
                note(send, result_of(refusal.result()), &self.bytes, &mut self.refused);
            }
            if let Err(Failed { submitted, error }) = submitted {
                self.fail(error);
                for send in &mut sends[submitted..] {
                    let sent = send_now(send.fd, &self.bytes[send.range.clone()]);
                    note(send, sent, &self.bytes, &mut self.refused);
                }
            }
        }
        self.bytes.clear();
        sends
    }

    fn fail(&mut self, error: io::Error) {
        if self.working.take().is_some() {
            tracing::warn!(%error, "io_uring has failed: this worker sends without it from now on");
        }
        self.uring = Err(error);
    }

    /// Fills a socket that nobody reads, and compares what has arrived with what was reported.
    fn probe(mut self) -> io::Result<()> {
        // TCP, which takes a part of a send where that is all it has room for: early kernels lost the number.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let ours = TcpStream::connect(listener.local_addr()?)?;
        let (mut theirs, _) = listener.accept()?;
        ours.set_nonblocking(true)?;
        // Should another process have connected in between.
        theirs.set_read_timeout(Some(PROBE_TIME))?;
        self.at_end = Some(Waker::noop().clone());
        let mut sent = 0;
        let rest = loop {
            self.collect(Waker::noop(), ours.as_raw_fd(), &[0; MAX_SEND_BYTES]);
            sent += MAX_SEND_BYTES;
            self.hand_over();
            self.uring.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
            match self.refused.remove(&ours.as_raw_fd()) {
                None if sent < PROBE_BYTES => {}
                None => return Err(io::Error::other("what a socket does not take is not reported")),
                Some(Refused::Full(rest)) => break rest.len(),
                Some(Refused::Failed(error)) => return Err(error.into()),
            }
        };
        drop(ours);
        let arrived = io::copy(&mut theirs, &mut io::sink())?;
        let (sent, rest) = (sent as u64, rest as u64);
        if arrived == 0 || arrived + rest != sent {
            return Err(io::Error::other(format!("of {sent} bytes {rest} were reported back, and {arrived} arrived")));
        }
        Ok(())
    }
}

/// Keeps what a socket did not take of a send.
fn note(send: &mut Collected, sent: Result<usize, Errno>, bytes: &[u8], refused: &mut HashMap<RawFd, Refused>) {
    let bytes = &bytes[send.range.clone()];
    let rest = match sent {
        Ok(sent) if sent == bytes.len() => return,
        Ok(sent) => Refused::Full(bytes[sent..].into()),
        Err(Errno::AGAIN | Errno::INTR) => Refused::Full(bytes.into()),
        Err(error) => Refused::Failed(error),
    };
    send.is_refused = true;
    refused.insert(send.fd, rest);
}

/// The kernel has taken only so many sends.
struct Failed {
    submitted: usize,
    error: io::Error,
}

fn submit(uring: &mut IoUring, sends: &[Collected], bytes: &[u8]) -> Result<(), Failed> {
    for (index, send) in sends.iter().enumerate() {
        push(uring, send.fd, &bytes[send.range.clone()], index as u64);
    }
    loop {
        let taken = uring.submit();
        let left = uring.submission().len();
        let error = match taken {
            _ if left == 0 => return Ok(()),
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        return Err(Failed { submitted: sends.len() - left, error });
    }
}

#[allow(unsafe_code, reason = "the kernel reads the bytes later than here")]
fn push(uring: &mut IoUring, fd: RawFd, bytes: &[u8], number: u64) {
    let length = u32::try_from(bytes.len()).expect("no more than MAX_SEND_BYTES");
    let send = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), length)
        .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(number);
    // SAFETY: `bytes` must stay as they are until the kernel is through with the send. It reads them within the call
    // that submits it: MSG_DONTWAIT makes the request one that never waits, so it is done or refused in that call
    // (io_uring_prep_send(3)); and `SendRing::bytes` is not touched between here and there, nor if that call fails.
    let pushed = unsafe { uring.submission().push(&send) };
    pushed.expect("the ring has MAX_SENDS entries, and was emptied by the last call");
}

/// What of a send is reported: how many bytes the socket took, or why none.
fn result_of(code: i32) -> Result<usize, Errno> {
    usize::try_from(code).map_err(|_| Errno::from_raw_os_error(-code))
}

#[allow(unsafe_code, reason = "the descriptor's owner hands over before it closes it")]
fn send_now(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: a descriptor that is borrowed must be open. It was when the send was collected, and `Stream`, its owner,
    // ends the turn before it closes it.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::task::Wake;
    use std::thread;

    use super::*;

    /// Where this kernel has no io_uring, there is nothing to test.
    fn ring() -> Option<SendRing> {
        let mut ring = SendRing::open().ok()?;
        ring.at_end = Some(Waker::noop().clone());
        Some(ring)
    }

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (client, listener.accept().expect("one has come").0)
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn refused(ring: &mut SendRing, socket: &TcpStream) -> Option<Refused> {
        ring.refused.remove(&socket.as_raw_fd())
    }

    #[test]
    fn what_it_says_of_sends_is_true_on_this_kernel() {
        if let Some(ring) = ring() {
            ring.probe().expect("whatever is open works");
        }
    }

    #[test]
    fn sends_arrive_in_their_order_and_are_not_reported() {
        let Some(mut ring) = ring() else { return };
        let mut pairs: Vec<_> = (0..3).map(|_| connected()).collect();
        for round in 0..2_u8 {
            for (number, (ours, _)) in (0_u8..).zip(&pairs) {
                ring.collect(Waker::noop(), ours.as_raw_fd(), &[number, round]).expect("there is room");
            }
        }
        assert!(ring.hand_over().iter().all(|send| !send.is_refused) && ring.refused.is_empty());
        for (number, (_, theirs)) in (0_u8..).zip(&mut pairs) {
            let mut bytes = [0; 4];
            theirs.read_exact(&mut bytes).expect("all was sent");
            assert_eq!(bytes, [number, 0, number, 1]);
        }
    }

    #[test]
    fn the_rest_of_a_send_that_fills_the_socket_comes_back() {
        let Some(mut ring) = ring() else { return };
        let (ours, mut theirs) = connected();
        ours.set_nonblocking(true).expect("it is a socket");
        let message: Vec<u8> = (0..=250).cycle().take(MAX_SEND_BYTES).collect();
        let mut sent = Vec::new();
        let rest = loop {
            ring.collect(Waker::noop(), ours.as_raw_fd(), &message).expect("there is room");
            sent.extend_from_slice(&message);
            ring.hand_over();
            if let Some(refused) = refused(&mut ring, &ours) {
                let Refused::Full(rest) = refused else { panic!("{refused:?}") };
                break rest;
            }
        };
        assert!(sent.ends_with(&rest));
        drop(ours);
        let mut arrived = Vec::new();
        theirs.read_to_end(&mut arrived).expect("it ends well");
        arrived.extend_from_slice(&rest);
        assert!(arrived == sent, "{} bytes of {}", arrived.len(), sent.len());
    }

    #[test]
    fn a_failed_socket_is_told_and_its_task_is_woken() {
        let Some(ring) = ring() else { return };
        RING.set(Some(ring));
        let ((ours, theirs), (well, mut peer)) = (connected(), connected());
        (&ours).write_all(b"never read").expect("it is open");
        drop(theirs);
        while (&ours).write_all(b"until its reset has come").is_ok() {}
        let tasks = [Arc::new(Woken::default()), Arc::new(Woken::default())];
        for (task, socket) in tasks.iter().zip([&ours, &well]) {
            let waker = task.clone().into();
            let turn = collect(&Context::from_waker(&waker), socket, b"a word").expect("there is room");
            assert!(is_turn(turn));
        }
        hand_over();
        assert!(matches!(take_refused(&ours), Some(Refused::Failed(Errno::PIPE))) && take_refused(&well).is_none());
        assert_eq!(tasks.map(|task| task.0.load(Ordering::Relaxed)), [1, 0]);
        peer.read_exact(&mut [0; 6]).expect("it was sent");
    }

    #[test]
    fn where_the_ring_fails_sends_go_without_it_and_none_is_lost() {
        let working = Arc::<AtomicUsize>::default();
        // A ring takes sends from the thread alone that opened it (IORING_SETUP_SINGLE_ISSUER).
        let Some(mut ring) = thread::spawn(ring).join().expect("it has not panicked") else { return };
        ring.working = Some(Working::new(&working));
        let (ours, mut theirs) = connected();
        ring.collect(Waker::noop(), ours.as_raw_fd(), b"collected").expect("there is room");
        assert!(ring.hand_over().iter().all(|send| !send.is_refused));
        theirs.read_exact(&mut [0; 9]).expect("it was sent");
        assert_eq!(ring.collect(Waker::noop(), ours.as_raw_fd(), b"by itself"), None);
        assert_eq!(working.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_turn_that_grows_too_large_is_handed_over_at_once_and_long_sends_go_by_themselves() {
        let Some(ring) = ring() else { return };
        RING.set(Some(ring));
        let (ours, mut theirs) = connected();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(collect(&cx, &ours, &[0; MAX_SEND_BYTES + 1]), None);
        let first = collect(&cx, &ours, b"x").expect("there is room");
        let turns: Vec<_> = (1..=MAX_SENDS).filter_map(|_| collect(&cx, &ours, b"x")).collect();
        assert!(turns[..turns.len() - 1].iter().all(|turn| *turn == first) && is_turn(turns[turns.len() - 1]));
        assert!(!is_turn(first));
        theirs.read_exact(&mut [0; MAX_SENDS as usize]).expect("one turn was sent");
        theirs.set_nonblocking(true).expect("it is a socket");
        assert!(theirs.read(&mut [0]).is_err(), "the next turn is still collected");
    }
}
