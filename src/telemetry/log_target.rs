//! Where a log goes, as the configuration says.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::log_sink::Sink;
use super::syslog::{SyslogSink, SyslogTarget};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stdout,
    Stderr,
    /// Appended to this file.
    File(PathBuf),
    Syslog(SyslogTarget),
}

impl LogTarget {
    /// Doesn't go by the standard library's `Stdout`: whoever prints would wait with the writer.
    ///
    /// # Errors
    /// The file can't be opened.
    pub(super) fn open(&self) -> io::Result<Sink> {
        match self {
            Self::Stdout => duplicate(io::stdout().as_fd()),
            Self::Stderr => duplicate(io::stderr().as_fd()),
            Self::File(path) => Sink::file(append_to(path)?),
            Self::Syslog(target) => Ok(Sink::Syslog(SyslogSink::new(target.receiver.clone()))),
        }
    }
}

fn duplicate(file: BorrowedFd<'_>) -> io::Result<Sink> {
    Sink::file(file.try_clone_to_owned()?.into())
}

/// Never waits: a named pipe that nobody has opened for reading yet is opened for both, which fifo(7) allows on Linux.
fn append_to(path: &Path) -> io::Result<File> {
    let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().create(true).append(true).read(is_pipe).custom_flags(flags).open(path)
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
            Self::Syslog(target) => target.fmt(f),
        }
    }
}
