//! `lb schema`: the JSON Schema of lb.yaml.

use crate::config;

use super::say;

pub(super) fn schema() {
    say(serde_json::to_string_pretty(&config::schema()).expect("a schema has text keys only"));
}
