//! The phases from running to stopped, and a watch for each part that acts on them.

use tokio::sync::watch;

/// How far the stop has come; it only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Asked to stop: reported as not ready, and still accepting for the grace time.
    Leaving,
    /// No more connections are accepted; those that are open may end by themselves.
    Closing,
    /// Connections that are still open are cut.
    Over,
}

#[derive(Debug)]
pub struct Drain(watch::Sender<Phase>);

#[derive(Clone, Debug)]
pub struct DrainWatch(watch::Receiver<Phase>);

impl Drain {
    /// Starts in [`Phase::Running`].
    pub fn new() -> (Self, DrainWatch) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (Self(sender), DrainWatch(receiver))
    }

    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let is_later = phase > *now;
            if is_later {
                *now = phase;
            }
            is_later
        });
    }
}

impl DrainWatch {
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `phase` is reached. Safe to cancel.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the `Drain` was dropped, which happens only when everything has ended.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}
