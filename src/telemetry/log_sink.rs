//! What lines of a log are written to: a file, a pipe or a terminal; or a receiver of syslog.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::fstat;

use super::lost_lines::LostLines;
use super::syslog::SyslogSink;

/// Written at once to a regular file at most.
const FILE_BYTES: usize = 8 * 1024 * 1024;
/// Written at once to anything else: a pipe takes so much without mixing it with what other writers have for it
/// (PIPE_BUF in pipe(7)), as where standard output and standard error are one pipe.
const PIPE_BYTES: usize = 4096;

/// Takes whole lines.
#[derive(Debug)]
pub enum Sink {
    File(FileSink),
    Syslog(SyslogSink),
}

/// A file, pipe or terminal.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    /// What one write may take, in whole lines.
    most_bytes: usize,
    is_regular: bool,
    /// A failed write has cut a line: the next one must not continue it.
    is_in_line: bool,
}

impl Sink {
    /// # Errors
    /// The kernel doesn't say what the file is.
    pub fn file(file: File) -> io::Result<Self> {
        let is_regular = file.metadata()?.is_file();
        let most_bytes = if is_regular { FILE_BYTES } else { PIPE_BYTES };
        Ok(Self::File(FileSink { file, most_bytes, is_regular, is_in_line: false }))
    }

    /// Writes lines, each with its newline.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), LostLines> {
        match self {
            Self::File(file) => file.write(lines),
            Self::Syslog(receiver) => receiver.write(lines),
        }
    }

    /// Whether nobody will ever read what is written: the file was removed.
    pub(super) fn is_removed(&self) -> bool {
        match self {
            Self::File(file) => file.is_regular && fstat(file.file.as_fd()).is_ok_and(|found| found.st_nlink == 0),
            Self::Syslog(_) => false,
        }
    }
}

impl FileSink {
    fn write(&mut self, lines: &[u8]) -> Result<(), LostLines> {
        let mut rest = lines;
        let mut write = || {
            if self.is_in_line {
                self.write_some(b"\n")?;
            }
            while !rest.is_empty() {
                let written = self.write_some(whole_lines(rest, self.most_bytes))?;
                rest = &rest[written..];
            }
            Ok(())
        };
        let result: io::Result<()> = write();
        result.map_err(|error| LostLines { error, lines: count_lines(rest) })
    }

    /// Writes at least one byte, however long that takes, and returns how many.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.is_in_line = bytes[written - 1] != b'\n';
                    return Ok(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whoever shares the pipe or terminal, or how it was opened, has made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // An error shows again at the write.
                    let _ = poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The lines among these bytes, each of which ends with a newline.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// As many of the lines as fit into `most` bytes, but at least one.
fn whole_lines(lines: &[u8], most: usize) -> &[u8] {
    if lines.len() <= most {
        return lines;
    }
    let is_end = |byte: &u8| *byte == b'\n';
    let last = lines[..most].iter().rposition(is_end).or_else(|| lines.iter().position(is_end));
    last.map_or(lines, |last| &lines[..=last])
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn writes_whole_lines_at_once() {
        let lines = b"one\ntwo\nthree\n";
        let of = |most| whole_lines(lines, most);
        assert_eq!([of(3), of(4), of(8), of(13)], [&b"one\n"[..], b"one\n", b"one\ntwo\n", b"one\ntwo\n"]);
        assert_eq!([of(14), whole_lines(b"cut", 2)], [&lines[..], b"cut"]);
    }

    #[test]
    fn a_line_that_a_failed_write_has_cut_is_not_continued() {
        let (mut reader, writer) = io::pipe().expect("a pipe can be had");
        let file = OwnedFd::from(writer).into();
        let mut sink = FileSink { file, most_bytes: PIPE_BYTES, is_regular: false, is_in_line: true };
        assert!(sink.write(b"next\n").is_ok());
        drop(sink);
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("it is open");
        assert_eq!(read, "\nnext\n");
    }
}
