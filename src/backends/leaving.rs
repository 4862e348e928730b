//! Backends that drain, to be removed once their connections have ended or their time is over.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::backend::Backend;

/// Between two looks at their connections.
const LOOK: Duration = Duration::from_millis(50);

/// Those of one pool.
#[derive(Default)]
pub(super) struct Leavers {
    leaving: RefCell<Vec<Leaving>>,
    joined: Notify,
}

/// What one address stands for.
pub(super) struct Leaving {
    pub(super) address: String,
    pub(super) backends: Vec<Arc<Backend>>,
    /// Who has ordered it.
    pub(super) by: String,
    /// `None`: when the last connection has ended.
    until: Option<Instant>,
}

impl Leavers {
    pub(super) fn add(&self, address: &str, backends: &[Arc<Backend>], by: &str, until: Option<Instant>) {
        backends.iter().for_each(|backend| backend.set_leaving(true));
        let (address, backends, by) = (address.to_owned(), backends.to_owned(), by.to_owned());
        self.leaving.borrow_mut().push(Leaving { address, backends, by, until });
        self.joined.notify_one();
    }

    /// These are not to go any more, or have gone.
    pub(super) fn stay(&self, addresses: &HashSet<&str>) {
        for left in self.leaving.borrow_mut().extract_if(.., |one| addresses.contains(&*one.address)) {
            left.end();
        }
    }

    /// The address of one that it is.
    pub(super) fn address_of(&self, is_it: impl Fn(&Leaving) -> bool) -> Option<String> {
        self.leaving.borrow().iter().find(|one| is_it(one)).map(|one| one.address.clone())
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.leaving.borrow().iter().map(|one| one.address.clone()).collect()
    }

    pub(super) fn backends(&self) -> Vec<Arc<Backend>> {
        self.leaving.borrow().iter().flat_map(|one| one.backends.clone()).collect()
    }

    /// Waits for some whose time has come. Safe to cancel.
    pub(super) async fn due(&self) -> Vec<Leaving> {
        loop {
            while self.leaving.borrow().is_empty() {
                self.joined.notified().await;
            }
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            let is_due = |one: &mut Leaving| one.until.is_some_and(|until| until <= now) || is_idle(&one.backends);
            let due: Vec<Leaving> = self.leaving.borrow_mut().extract_if(.., is_due).collect();
            if !due.is_empty() {
                due.iter().for_each(Leaving::end);
                return due;
            }
        }
    }
}

impl Leaving {
    fn end(&self) {
        self.backends.iter().for_each(|backend| backend.set_leaving(false));
    }
}

pub(super) fn is_idle(backends: &[Arc<Backend>]) -> bool {
    backends.iter().all(|backend| backend.active() == 0)
}
