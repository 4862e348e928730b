//! The list of one worker's connections, by which operators find them.

use std::cell::{OnceCell, Ref, RefCell};
use std::rc::Rc;

use tokio::task::AbortHandle;

use crate::lifecycle::IdleTimer;

use super::account::Account;
use super::admitted::Admitted;

/// One connection, shared by its task and by the list.
pub(super) struct Connection {
    pub(super) admitted: Admitted,
    pub(super) idle_timer: IdleTimer,
    task: OnceCell<AbortHandle>,
}

/// The connections of one worker, each at the index that its idle timer has too.
#[derive(Default)]
pub(super) struct Connections(RefCell<Vec<Option<Rc<Connection>>>>);

impl Connection {
    pub(super) fn account(&self) -> &Account {
        &self.admitted.account
    }

    pub(super) fn set_task(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// Has its task dropped, whatever it waits for: both peers are reset. `false`: that is under way already.
    pub(super) fn end_by_operator(&self) -> bool {
        let is_first = self.account().end_by_operator();
        if let Some(task) = self.task.get() {
            task.abort();
        }
        is_first
    }
}

impl Connections {
    pub(super) fn enter(&self, admitted: Admitted, idle_timer: IdleTimer) -> Rc<Connection> {
        let index = idle_timer.key();
        let connection = Rc::new(Connection { admitted, idle_timer, task: OnceCell::new() });
        let mut all = self.0.borrow_mut();
        if all.len() <= index {
            all.resize(index + 1, None);
        }
        all[index] = Some(connection.clone());
        connection
    }

    pub(super) fn leave(&self, connection: &Connection) {
        self.0.borrow_mut()[connection.idle_timer.key()] = None;
    }

    /// All of them, with gaps.
    pub(super) fn all(&self) -> Ref<'_, [Option<Rc<Connection>>]> {
        Ref::map(self.0.borrow(), |all| &all[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_shares_with_the_list_stays_small() {
        // With the two counts of an Rc 224 bytes, a size that the allocator has.
        assert!(size_of::<Connection>() <= 208, "{}", size_of::<Connection>());
    }
}
