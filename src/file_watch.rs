//! Notices when a file has changed: the configuration, or what the system says of names. It is looked at by name, once
//! a second: a file that was written anew, renamed into place, or is reached by another symbolic link (as in a
//! Kubernetes ConfigMap) has another inode or time. inotify would have to watch every folder and link on the way to it.
//!
//! Reads no file, and doesn't know what is in it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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

/// Watches files, each of which may be missing.
pub struct FileWatch {
    files: Vec<WatchedFile>,
    ticks: Interval,
}

struct WatchedFile {
    path: PathBuf,
    /// When it was read last.
    known: Option<Fingerprint>,
    /// At the last tick.
    last: Option<Fingerprint>,
}

impl FileWatch {
    /// To be made before the files are read.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files = files.into_iter().map(|path| {
            let known = fingerprint(&path);
            WatchedFile { path, known, last: known }
        });
        let files = files.collect();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { files, ticks }
    }

    /// To be called before the files are read again: only later changes count then.
    pub fn mark_read(&mut self) {
        for file in &mut self.files {
            file.known = fingerprint(&file.path);
        }
    }

    /// Waits until a file has changed. One that is missing for a moment, or still being written, has not. Safe to
    /// cancel.
    pub async fn changed(&mut self) {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        loop {
            self.ticks.tick().await;
            // Each is looked at, also after one that has changed.
            if self.files.iter_mut().fold(false, |any, file| file.take_change() | any) {
                return;
            }
        }
    }
}

impl WatchedFile {
    fn take_change(&mut self) -> bool {
        let now = fingerprint(&self.path);
        // Unchanged for a whole period, so that it is not read while it is still being written.
        let is_settled = now == std::mem::replace(&mut self.last, now);
        let has_changed = is_settled && now.is_some() && now != self.known;
        if has_changed {
            self.known = now;
        }
        has_changed
    }
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let metadata = fs::metadata(path).ok()?;
    Some(Fingerprint {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}
