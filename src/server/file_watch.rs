//! Notices when the configuration file has changed. It is looked at by name, once a second: a file that was written
//! anew, renamed into place, or is reached by another symbolic link (as in a Kubernetes ConfigMap) has another inode or
//! time. inotify would have to watch every folder and link on the way to it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

const PERIOD: Duration = Duration::from_secs(1);

/// What differs after any change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

pub(super) struct FileWatch {
    file: Option<PathBuf>,
    /// When the file was read last.
    known: Option<Fingerprint>,
    /// At the last tick.
    last: Option<Fingerprint>,
    ticks: Interval,
}

impl FileWatch {
    /// To be made before the file is read; `None`: there is nothing to watch.
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        let known = fingerprint(file.as_ref());
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { file, known, last: known, ticks }
    }

    /// To be called before the file is read again: only later changes count then.
    pub(super) fn mark_read(&mut self) {
        self.known = fingerprint(self.file.as_ref());
    }

    /// Waits until the file has changed. One that is missing for a moment, or still being written, has not. Safe to
    /// cancel.
    pub(super) async fn changed(&mut self) {
        if self.file.is_none() {
            return std::future::pending().await;
        }
        loop {
            self.ticks.tick().await;
            let now = fingerprint(self.file.as_ref());
            // Unchanged for a whole period: whoever writes it is done.
            let is_settled = now == self.last;
            self.last = now;
            if is_settled && now.is_some() && now != self.known {
                self.known = now;
                return;
            }
        }
    }
}

fn fingerprint(file: Option<&PathBuf>) -> Option<Fingerprint> {
    let metadata = fs::metadata(file?).ok()?;
    Some(Fingerprint {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}
