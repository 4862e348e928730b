//! What clients of a pool get while no backend is usable.

use std::sync::Arc;

use crate::config::WhenAllDown;

use super::backend::Backend;

labels! {
    /// What clients of a pool get, by what health checks and operators say of its backends.
    Service {
        /// A backend that is usable.
        Served = "served",
        /// Those that health checks let pass, though none is usable: failure detection alone keeps them out, and may be
        /// wrong about all of them.
        EjectedTried = "ejected_tried",
        /// Any backend but those that an operator took out: none passes (`when_all_down: try_all`).
        AllTried = "all_tried",
        /// A reset, or in http mode 503: there is no backend that they may be given.
        Refused = "refused",
    }
}

impl Service {
    pub(super) fn of(backends: &[Arc<Backend>], when_all_down: WhenAllDown) -> Self {
        if backends.iter().any(|backend| backend.is_usable()) {
            return Self::Served;
        }
        if backends.iter().any(|backend| backend.passes_checks()) {
            return Self::EjectedTried;
        }
        let tries_all = when_all_down == WhenAllDown::TryAll && backends.iter().any(|backend| backend.is_in_service());
        if tries_all { Self::AllTried } else { Self::Refused }
    }

    /// Whether this backend may be tried although none is usable.
    pub fn fails_open_to(self, backend: &Backend) -> bool {
        match self {
            Self::Served | Self::EjectedTried => backend.passes_checks(),
            Self::AllTried => backend.is_in_service(),
            Self::Refused => false,
        }
    }
}
