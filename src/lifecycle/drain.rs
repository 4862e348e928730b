//! The phases from running to stopped, and a watch for everything that acts on them.

use tokio::sync::watch;

/// How far the stop has come; it only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Asked to stop: no longer ready, still accepting for the grace time.
    Leaving,
    /// Accepting no more; connections may end by themselves.
    Closing,
    /// What is left is cut.
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
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }
}

impl DrainWatch {
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `phase` is reached, or the owner of the [`Drain`] is gone. Safe to cancel.
    pub async fn reached(&mut self, phase: Phase) {
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}
