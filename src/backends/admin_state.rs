//! What operators want, whatever is known of a backend.

use serde::{Deserialize, Serialize};

/// What an operator wants of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// That it serves.
    #[default]
    Enable,
    /// That it takes no new connections.
    Drain,
    /// That it is out of service.
    Disable,
}
