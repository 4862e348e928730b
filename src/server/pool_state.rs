//! The state of the pools on its way from one process to the next: JSON in a file in memory (memfd_create(2)), which is
//! passed like a socket. What is in it is said by `backends`.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::net::PassedSockets;

use super::listen_sockets::SharedSockets;
use super::pools::{CarriedPools, Pools};

/// The name under which the new process looks for it.
const NAME: &str = "state of the pools";
/// Some hundred bytes a backend, of which a pool has 16,384 at most.
const MAX_BYTES: u64 = 256 << 20;

/// `None`: it can't be passed on, which is logged.
pub(super) fn pass(pools: &Pools) -> Option<(String, SharedSockets)> {
    match write(&pools.carried()) {
        Ok(file) => Some((NAME.to_owned(), Arc::new(vec![file]))),
        Err(error) => {
            tracing::warn!(%error, "the state of backends can't be passed on; the new process learns it anew");
            None
        }
    }
}

/// What the old process has passed on, if it has.
pub(super) fn take(passed: &mut Vec<PassedSockets>) -> CarriedPools {
    let Some(index) = passed.iter().position(|one| one.address == NAME) else {
        tracing::warn!("the old process passes no state of backends on; drained ones are in use again");
        return CarriedPools::new();
    };
    let file = passed.swap_remove(index).sockets.pop();
    read(file).unwrap_or_else(|error| {
        tracing::warn!(%error, "the old process's state of backends can't be read; they begin anew");
        CarriedPools::new()
    })
}

fn write(pools: &CarriedPools) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("lb-pools", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(pools)?)?;
    file.rewind()?;
    Ok(file.into())
}

fn read(file: Option<OwnedFd>) -> io::Result<CarriedPools> {
    let mut json = Vec::new();
    if let Some(file) = file {
        File::from(file).take(MAX_BYTES).read_to_end(&mut json)?;
    }
    Ok(serde_json::from_slice(&json)?)
}
