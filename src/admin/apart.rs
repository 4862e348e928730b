//! Work of some milliseconds, which must not block the main thread.

use tokio::sync::Semaphore;

/// Whose turn it is.
static TURN: Semaphore = Semaphore::const_new(1);

/// Does `work` on a thread of its own, one at a time: a client that leaves before its turn costs nothing, and one that
/// leaves later keeps the turn until the work is done. `None`: the process is ending.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let turn = TURN.acquire().await.ok()?;
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn those_who_leave_before_their_turn_cost_nothing() {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let first = tokio::spawn(apart(move || {
            begun.send(()).expect("the test waits for it");
            released.recv()
        }));
        while has_begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let done = done.clone();
            let left = timeout(Duration::ZERO, apart(move || done.fetch_add(1, Ordering::Relaxed))).await;
            assert!(left.is_err(), "it was not its turn");
        }
        release.send(()).expect("the work waits for it");
        assert!(first.await.is_ok_and(|end| end.is_some()));
        assert_eq!(apart(|| 7).await, Some(7));
        assert_eq!(done.load(Ordering::Relaxed), 0);
    }
}
