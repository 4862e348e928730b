//! What one process tells the next by a file in memory (memfd_create(2)), which is passed like a socket. What is in it
//! is said by `backends` and `admin`.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::net::PassedSockets;

use super::listen_sockets::SharedSockets;

/// Some hundred bytes a backend, of which a pool has 16,384 at most.
const MAX_BYTES: u64 = 256 << 20;

/// A file of this content, under a name by which the new process looks for it.
pub(super) fn pass(name: &str, content: &[u8]) -> io::Result<(String, SharedSockets)> {
    let mut file = File::from(memfd_create("lb-state", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok((name.to_owned(), Arc::new(vec![file.into()])))
}

/// The content of the file that the old process has passed under this name; `None`: there is none.
pub(super) fn take(passed: &mut Vec<PassedSockets>, name: &str) -> Option<io::Result<Vec<u8>>> {
    let index = passed.iter().position(|one| one.address == name)?;
    passed.swap_remove(index).sockets.pop().map(read)
}

fn read(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::from(file).take(MAX_BYTES).read_to_end(&mut content)?;
    Ok(content)
}
