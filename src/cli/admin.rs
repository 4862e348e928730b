//! Requests to the admin server of a running balancer.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use crate::config::{AdminConfig, Overrides, Source, means_off};

use super::client::{self, Ask};
use super::environment::variable;
use super::error::CliError;
use super::foreign;

/// Where packages and the container image have the admin server's unix socket.
const SOCKET: &str = "/run/lb/admin.sock";
/// The admin server's default.
const DEFAULT_ADMIN: &str = "127.0.0.1:9900";

/// The admin server's address, and the token that changes need.
#[derive(Args, Clone, Debug)]
pub(super) struct AdminArgs {
    /// The balancer's admin address: host:port, unix:/path or its page's URL [env: LB_ADMIN_SOCKET, LB_ADMIN] [default:
    /// unix:/run/lb/admin.sock where this user may write to it, else 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The balancer's configuration, which has the address and the token's file
    #[arg(long, short, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// Has the bearer token that changes need [env: LB_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(super) struct AdminClient {
    address: String,
    token: Option<String>,
}

/// What came of an order, in words.
#[derive(Deserialize)]
struct Told {
    result: String,
}

#[derive(Deserialize)]
struct ApiError {
    error: Option<String>,
}

/// A runtime for a few requests.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}

impl AdminArgs {
    /// The address is that of the flag, of the variables that the balancer itself reads, or the default; a unix socket
    /// first, which needs no token.
    pub(super) fn admin(&self) -> Result<AdminClient, CliError> {
        let configured = self.config.as_deref().map(read_config).transpose()?;
        let (bind, token_file) = configured.map_or((None, None), |admin| {
            let socket = admin.socket.as_ref().map(ToString::to_string);
            let bind = || admin.bind.map_or_else(|| "off".to_owned(), |bind| bind.to_string());
            (Some(socket.unwrap_or_else(bind)), admin.token_file)
        });
        let socket = || variable("LB_ADMIN_SOCKET").filter(|path| !means_off(path)).map(|path| unix(&path));
        let address = self.admin.clone().or(bind).or_else(socket).or_else(|| variable("LB_ADMIN"));
        let address = address.unwrap_or_else(default_admin);
        if means_off(&address) {
            return Err(CliError::AdminOff);
        }
        // As the demo and browsers show it.
        let address = address.strip_prefix("http://").map_or(&*address, |rest| rest.trim_end_matches('/')).to_owned();
        if let Some(why) = wrong_address(&address) {
            return Err(CliError::NoAddress { address, why });
        }
        // The balancer may listen on every address; this connects to one of them.
        let address = match address.strip_prefix("*:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => address,
        };
        let file = self.token_file.clone().or(token_file).or_else(|| variable("LB_TOKEN_FILE").map(PathBuf::from));
        Ok(AdminClient { address, token: file.as_deref().map(read_token).transpose()? })
    }
}

/// Its admin server, as the balancer itself would run it.
fn read_config(file: &Path) -> Result<AdminConfig, CliError> {
    let environment = Overrides::from_environment(variable);
    let source =
        Source { translate: Some(foreign::translate), file: Some(file.to_owned()), environment, ..Source::default() };
    Ok(source.load()?.config.admin)
}

/// What keeps a text from being an address to ask; `None`: it may be one.
fn wrong_address(address: &str) -> Option<&'static str> {
    if address.starts_with("https://") {
        return Some("it speaks no TLS");
    }
    if address.starts_with("unix:") {
        return None;
    }
    match address.rsplit_once(':') {
        None => Some("it has no port"),
        Some((_, port)) if port.parse::<u16>().is_err() => Some("its port is no number up to 65535"),
        Some(_) => None,
    }
}

fn unix(path: &str) -> String {
    format!("unix:{}", path.trim_start_matches("unix:"))
}

fn default_admin() -> String {
    if UnixStream::connect(SOCKET).is_ok() { unix(SOCKET) } else { DEFAULT_ADMIN.to_owned() }
}

fn read_token(file: &Path) -> Result<String, CliError> {
    crate::admin::read_token(file).map_err(|source| CliError::Token { file: file.to_owned(), source })
}

impl AdminClient {
    pub(super) async fn report<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let (_, body) = self.request(Ask::new(Method::GET, path)).await?;
        self.read(path, &body)
    }

    /// A report that the balancer may refuse.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.order(Ask::new(Method::GET, path)).await
    }

    /// Removes what the path stands for.
    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.order(Ask::new(Method::DELETE, path)).await
    }

    /// Makes a change, and returns its result.
    pub(super) async fn change(&self, path: &str) -> Result<String, CliError> {
        self.told(Ask::new(Method::POST, path)).await
    }

    /// Gives an order, and returns its result in words.
    pub(super) async fn told(&self, order: Ask<'_>) -> Result<String, CliError> {
        let Told { result } = self.order(order).await?;
        Ok(result)
    }

    /// Gives an order, and returns what came of it.
    pub(super) async fn order<T: DeserializeOwned>(&self, order: Ask<'_>) -> Result<T, CliError> {
        let path = order.path;
        let (status, body) = self.request(order).await?;
        if status.is_success() {
            return self.read(path, &body);
        }
        match self.read(path, &body)? {
            ApiError { error: Some(error) } if status == StatusCode::UNAUTHORIZED => Err(CliError::Unauthorized(error)),
            ApiError { error } => Err(CliError::Refused(error.unwrap_or_else(|| status.to_string()))),
        }
    }

    async fn request(&self, ask: Ask<'_>) -> Result<(StatusCode, Bytes), CliError> {
        client::send_request(&self.address, ask, self.token.as_deref())
            .await
            .map_err(|source| CliError::NoAnswer { address: self.address.clone(), source })
    }

    fn read<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, CliError> {
        let not_a_report =
            |source| CliError::NotAReport { address: self.address.clone(), path: path.to_owned(), source };
        serde_json::from_slice(body).map_err(not_a_report)
    }
}
