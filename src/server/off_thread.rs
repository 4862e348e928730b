//! What may block runs on a thread of its own: the main thread serves the admin address and asks backends for their
//! health meanwhile.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// Runs `work` on a thread of that name and waits for its result, but not longer than `limit`: then the thread is left
/// to end by itself, and nobody waits for it, the end of the process neither.
///
/// # Errors
/// There is no thread for it, or it took too long.
pub(super) async fn off_thread<T: Send + 'static>(
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = oneshot::channel();
    // An error of the sending means that the time was over.
    thread::Builder::new().name(name.to_owned()).spawn(move || drop(sender.send(work())))?;
    let ended = timeout(limit, result).await.map_err(|_| io::ErrorKind::TimedOut)?;
    ended.map_err(|_| io::Error::other("the thread has panicked"))
}
