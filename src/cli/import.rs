//! `lb import`: a configuration of nginx or HAProxy as an lb.yaml.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{Problem, Problems, read_bytes};
use crate::import::{Format, Impact, Import, Unreadable};

use super::environment::print_line;
use super::error::CliError;
use super::foreign;

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 all that clients or backends could notice was translated; 3 something of that was \
                        left out (the heading lists it, and the YAML is written unless --strict); 2 the file can't be \
                        read as either."
)]
pub(super) struct ImportArgs {
    /// nginx.conf or haproxy.cfg, known by its content
    file: PathBuf,
    /// Write the YAML to this file [default: standard output]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Write nothing if something was left out that changes traffic
    #[arg(long)]
    strict: bool,
}

pub(super) fn import(args: &ImportArgs) -> Result<(), CliError> {
    let import = read(&args.file)?;
    let left_out: Vec<_> = import.notes.iter().filter(|note| note.impact == Impact::ChangesTraffic).collect();
    let yaml = import.to_yaml(&args.file.display().to_string());
    match &args.output {
        _ if args.strict && !left_out.is_empty() => {}
        None => print_line(yaml.trim_end()),
        Some(output) => {
            fs::write(output, yaml).map_err(|source| CliError::Output { file: output.clone(), source })?;
        }
    }
    if left_out.is_empty() {
        return Ok(());
    }
    Err(CliError::LeftOut(left_out.iter().map(ToString::to_string).collect()))
}

fn read(file: &Path) -> Result<Import, CliError> {
    let problem = |place: String, message: String| CliError::Config(Problems(vec![Problem::at(place, "", message)]));
    let shown = file.display().to_string();
    let bytes = read_bytes(file).map_err(|error| problem(shown.clone(), format!("can't be read: {error}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let format = Format::of(&text)
        .or_else(|| Format::guess(&text))
        .ok_or_else(|| problem(format!("{shown}:1"), "is neither an nginx.conf nor a haproxy.cfg".to_owned()))?;
    let unreadable = |Unreadable { place, message }| problem(place.to_string(), message);
    foreign::import(format, file, &text).map_err(unreadable)
}
