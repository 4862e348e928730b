//! What all connections of one worker move their bytes through.

use std::rc::Rc;

use crate::config::RelayMode;

use super::pipes::Pipes;
use super::scratch::Scratch;

/// Owned by a worker and used by its connections in turn: the buffer within one poll, a pipe while it holds bytes.
#[derive(Clone, Debug)]
pub struct RelayResources {
    /// For copying.
    pub scratch: Rc<Scratch>,
    /// For splicing.
    pub pipes: Rc<Pipes>,
    pub mode: RelayMode,
}
