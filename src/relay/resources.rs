//! What all connections of one worker move their bytes through.

use std::rc::Rc;

use crate::config::RelayMode;

use super::pipes::Pipes;
use super::scratch::Scratch;

/// Owned by a worker and used by its connections in turn: the buffer within one poll, a pipe for as long as it holds
/// bytes.
#[derive(Clone, Debug)]
pub struct RelayResources {
    /// For what is copied.
    pub scratch: Rc<Scratch>,
    /// For what is spliced.
    pub pipes: Rc<Pipes>,
    /// Whether to copy, to splice, or to choose by what comes.
    pub mode: RelayMode,
}
