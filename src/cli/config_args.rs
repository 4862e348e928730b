//! The configuration's source on the command line: `-c`, the overrides, and the environment.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Overrides, Source};

use super::environment::{variable, variable_names};
use super::foreign;

#[derive(Args, Clone, Debug)]
pub(super) struct ConfigArgs {
    /// The configuration file: lb.yaml, or an nginx.conf or haproxy.cfg of which nothing that changes traffic has to be
    /// left out (see `lb import`) [env: LB_CONFIG] [default: ./lb.yaml, else /etc/lb/lb.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

impl ConfigArgs {
    pub(super) fn source(&self) -> Source {
        let file = self.config.clone().or_else(|| variable("LB_CONFIG").map(PathBuf::from));
        let environment = Overrides::from_environment(variable);
        let misspelt = Overrides::misspelt(variable_names());
        Source { translate: Some(foreign::translate), file, environment, flags: self.overrides.clone(), misspelt }
    }
}
