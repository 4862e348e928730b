//! Has the configuration file changed? Asked once a second, by name: a file that is written anew, renamed into place,
//! or reached by another symbolic link (as a Kubernetes ConfigMap is) has another inode or time.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

const PERIOD: Duration = Duration::from_secs(1);

/// What a change of a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// One file.
pub(super) struct FileWatch {
    file: Option<PathBuf>,
    /// As it was when it was read.
    known: Option<Print>,
    /// As it was at the last look.
    last: Option<Print>,
    looks: Interval,
}

impl FileWatch {
    /// The file as it is before it is read; `None`: there is nothing to watch.
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        let known = print_of(file.as_ref());
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { file, known, last: known, looks }
    }

    /// It is about to be read: only what changes from now on is a change.
    pub(super) fn is_read(&mut self) {
        self.known = print_of(self.file.as_ref());
    }

    /// Waits until the file has changed. One that is missing for a moment, or still being written, has not. Safe to
    /// cancel.
    pub(super) async fn changed(&mut self) {
        if self.file.is_none() {
            return std::future::pending().await;
        }
        loop {
            self.looks.tick().await;
            let now = print_of(self.file.as_ref());
            let is_settled = now == self.last;
            self.last = now;
            if is_settled && now.is_some() && now != self.known {
                self.known = now;
                return;
            }
        }
    }
}

fn print_of(file: Option<&PathBuf>) -> Option<Print> {
    let metadata = fs::metadata(file?).ok()?;
    Some(Print {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}
