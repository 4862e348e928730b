//! `lb schema`: the JSON Schema of lb.yaml.

use crate::config;

use super::environment::print_line;

pub(super) fn schema() {
    print_line(serde_json::to_string_pretty(&config::schema()).expect("a schema has text keys only"));
}
