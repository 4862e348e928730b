//! The program: parse, dispatch, turn an error into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb::cli::main()
}
