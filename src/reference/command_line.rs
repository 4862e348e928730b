//! docs/reference/command-line.md, from clap: what `--help` says of each command.

use clap::Command;

use super::markdown::{Page, code};

/// As on a wide terminal.
const COLUMNS: usize = 100;

pub(super) fn page() -> String {
    let mut page = Page::new(
        "Command line",
        "What `lb --help` and `lb COMMAND --help` print. `lb man` has the same as a manual page, `lb completions` as \
         completions for a shell.",
    );
    let mut lb = crate::cli::command().term_width(COLUMNS);
    lb.build();
    write(&mut page, &mut lb);
    page.finish()
}

fn write(page: &mut Page, command: &mut Command) {
    page.heading(&code(command.get_bin_name().unwrap_or_else(|| command.get_name())));
    page.code(&command.render_long_help().to_string());
    for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
        write(page, inner);
    }
}
