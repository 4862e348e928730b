//! The pages of docs/reference, made from what the program itself goes by. Compiled for tests alone;
//! `LB_WRITE_REFERENCE=1 cargo test --lib page_in_docs` writes them anew.

mod api;
mod command_line;
mod configuration;
mod log;
mod markdown;
mod metrics;
mod schemas;

use std::{env, fs};

#[test]
fn each_page_in_docs_is_the_one_made_here() {
    let pages = [
        ("api", api::page()),
        ("command-line", command_line::page()),
        ("configuration", configuration::page()),
        ("log", log::page()),
        ("metrics", metrics::page()),
    ];
    for (name, page) in pages {
        let path = format!("{}/docs/reference/{name}.md", env!("CARGO_MANIFEST_DIR"));
        if env::var_os("LB_WRITE_REFERENCE").is_some() {
            fs::write(&path, &page).expect("docs can be written");
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "{path}: write it anew: LB_WRITE_REFERENCE=1 cargo test --lib page_in_docs");
    }
}
