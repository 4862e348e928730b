//! `lb.yaml` as a tree: read with the position of each key, expanded from the short form to the long one, edited by
//! overrides, and turned into `file`'s types. Problems are reported with the keys and places that the user wrote.

mod edit;
mod humanize;
mod positions;
mod report;
mod short_form;
mod tree;

pub use edit::{Edit, EditValue, Scope};
pub use humanize::nearest_word;
pub use positions::join;
pub use report::{Reporter, listed};
pub use short_form::is_short_form_key;
pub use tree::{Tree, print, print_compact, read_json};
