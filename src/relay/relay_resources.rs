//! What all connections of one worker move their bytes through.

use std::rc::Rc;

use crate::config::RelayMode;

use super::pipes::WorkerPipe;
use super::scratch::Scratch;
use super::unsent::Credit;

/// Owned by a worker and used by its connections in turn, both within one poll.
#[derive(Clone, Debug)]
pub struct RelayResources {
    /// For copying.
    pub scratch: Rc<Scratch>,
    /// For splicing.
    pub pipe: Rc<WorkerPipe>,
    /// For what slow receivers don't take.
    pub credit: Rc<Credit>,
    pub mode: RelayMode,
}
