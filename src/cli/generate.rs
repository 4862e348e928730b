//! What packages ship beside the program, made from the command line's own description: completions for shells, and
//! manual pages.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::error::CliError;

#[derive(Args, Clone, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell that is to complete commands and flags
    shell: Shell,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ManArgs {
    /// Write the pages of all commands into this folder: lb.1, lb-check.1 …
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "lb", &mut script);
    print(&script);
}

pub(super) fn man(args: &ManArgs, command: Command) -> Result<(), CliError> {
    if let Some(folder) = &args.output {
        let failed = |source| CliError::Output { file: folder.clone(), source };
        return clap_mangen::generate_to(command, folder).map_err(failed);
    }
    let mut page = Vec::new();
    Man::new(command).render(&mut page).expect("a Vec takes every byte");
    print(&page);
    Ok(())
}

/// That the reader has gone is not a failure.
fn print(text: &[u8]) {
    let _ = io::stdout().write_all(text);
}
