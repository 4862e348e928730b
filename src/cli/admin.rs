//! Talking to a running balancer: where it is asked, and what makes an answer.

use std::path::{Path, PathBuf};

use clap::Args;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::{CliError, client, variable};

const DEFAULT_ADMIN: &str = "127.0.0.1:9900";

/// Where the admin server is, and the token that changes need there.
#[derive(Args, Clone, Debug)]
pub(super) struct AdminArgs {
    /// The balancer's admin address: host:port or unix:/path [env: LB_ADMIN] [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Holds the bearer token that changes need [env: LB_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// An admin server that can be asked.
pub(super) struct Admin {
    address: String,
    token: Option<String>,
}

#[derive(Deserialize)]
struct ApiMessage {
    result: Option<String>,
    error: Option<String>,
}

/// A runtime for a few questions.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("can't start the runtime: {error}")))
}

impl AdminArgs {
    /// The address to ask: the flag's, the variable's that the balancer itself reads, or the default.
    pub(super) fn admin(&self) -> Result<Admin, CliError> {
        let address = self.admin.clone().or_else(|| variable("LB_ADMIN")).unwrap_or_else(|| DEFAULT_ADMIN.to_owned());
        if address == "off" {
            let message = "the admin server is off (LB_ADMIN or --admin says so): nothing to ask";
            return Err(CliError::Failed(message.to_owned()));
        }
        let address = address.strip_prefix("*:").map_or_else(|| address.clone(), |port| format!("127.0.0.1:{port}"));
        let file = self.token_file.clone().or_else(|| variable("LB_TOKEN_FILE").map(PathBuf::from));
        Ok(Admin { address, token: file.as_deref().map(read_token).transpose()? })
    }
}

fn read_token(file: &Path) -> Result<String, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::Failed(format!("can't read the token from {}: {error}", file.display())))?;
    match text.trim() {
        token if token.is_empty() || token.chars().any(char::is_control) => {
            Err(CliError::Failed(format!("{} must hold the token as its only line", file.display())))
        }
        token => Ok(token.to_owned()),
    }
}

impl Admin {
    /// GETs a report.
    pub(super) async fn report<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let (_, body) = self.ask(Method::GET, path).await?;
        self.read(path, &body)
    }

    /// GETs a path: the status and the body.
    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), CliError> {
        self.ask(Method::GET, path).await
    }

    /// Asks for a change; gives what came of it.
    pub(super) async fn change(&self, path: &str) -> Result<String, CliError> {
        let (status, body) = self.ask(Method::POST, path).await?;
        match self.read(path, &body)? {
            ApiMessage { result: Some(result), .. } if status.is_success() => Ok(result),
            ApiMessage { error: Some(error), .. } if status == StatusCode::UNAUTHORIZED => {
                Err(CliError::Failed(format!("{error} (--token-file FILE gives it)")))
            }
            ApiMessage { error, .. } => Err(CliError::Failed(error.unwrap_or_else(|| status.to_string()))),
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), CliError> {
        client::ask(&self.address, method, path, self.token.as_deref()).await.map_err(|error| {
            CliError::Failed(format!(
                "no answer from the admin server at {}: {error} (is lb running? --admin ADDR says where)",
                self.address
            ))
        })
    }

    fn read<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, CliError> {
        serde_json::from_slice(body)
            .map_err(|error| CliError::Failed(format!("{}{path} answered no report: {error}", self.address)))
    }
}
