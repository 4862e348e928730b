//! `lb connections` and `lb kill`: which connections of clients a running balancer has, and the end of some.

use std::io::{self, BufRead, IsTerminal, Write};
use std::iter::once;
use std::num::NonZeroUsize;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::admin::{ConnectionReport, EndedReport, OpenConnectionsReport};
use crate::lifecycle::{MOST_LISTED, Sort};

use super::admin::{AdminArgs, AdminClient, runtime};
use super::environment::print_line;
use super::error::CliError;
use super::status::{bytes, uptime};

pub(super) const PATH: &str = "/api/v1/connections";

/// Which connections are meant: those that fit all that is given.
#[derive(Args, Clone, Debug)]
struct SelectionArgs {
    /// Those of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Those that use this backend, by its address as `lb status` shows it
    #[arg(long, value_name = "ADDR")]
    backend: Option<String>,
    /// Those of this client, or of all clients in a network: 10.1.2.3, 10.1.0.0/16, fd00::/8
    #[arg(long, value_name = "ADDR")]
    client: Option<String>,
    /// Those of this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ConnectionsArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Which come first; of `bytes` those with the most
    #[arg(long, value_name = "BY", default_value = "newest")]
    #[arg(value_parser = PossibleValuesParser::new(Sort::ALL.iter().map(|sort| sort.as_str())))]
    sort: String,
    /// Show so many at most
    #[arg(long, value_name = "N", default_value = "100")]
    limit: NonZeroUsize,
    /// Print the API's report
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("which").required(true).multiple(true)
    .args(["id", "pool", "backend", "client", "listener", "all"])))]
pub(super) struct KillArgs {
    /// The connection's id, as `lb connections` and the access log have it
    id: Option<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// All connections
    #[arg(long, conflicts_with_all = ["id", "pool", "backend", "client", "listener"])]
    all: bool,
    /// Don't ask at a terminal before more than one connection ends
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn connections(args: &ConnectionsArgs) -> Result<(), CliError> {
    let admin = args.admin.admin()?;
    let query = args.selection.query().chain(once(("sort", args.sort.as_str())));
    let report = runtime()?.block_on(fetch(&admin, &path(query), args.limit.get()))?;
    if args.json {
        print_line(serde_json::to_string_pretty(&report).expect("reports have text keys only"));
    } else {
        print_line(table(&report).trim_end());
    }
    Ok(())
}

pub(super) fn kill(args: &KillArgs) -> Result<(), CliError> {
    let (admin, runtime) = (args.admin.admin()?, runtime()?);
    let id = args.id.as_deref().map(|id| ("id", id));
    let which: Vec<_> = args.selection.query().chain(id).collect();
    let is_asked = !args.yes && id.is_none() && io::stdin().is_terminal() && io::stderr().is_terminal();
    if is_asked {
        let meant = runtime.block_on(fetch(&admin, &path(which.iter().copied()), 1))?.matched;
        if meant > 1 && !confirms(meant) {
            return Err(CliError::NotConfirmed);
        }
    }
    let all = args.all.then_some(("all", "true"));
    let path = path(which.into_iter().chain(all));
    let EndedReport { ended } = runtime.block_on(admin.delete(&path))?;
    match &args.id {
        Some(id) if ended == 0 => Err(CliError::Refused(format!("there is no such connection {id} (any more)"))),
        None if ended == 0 => Err(CliError::Refused("there is no such connection".to_owned())),
        _ => {
            print_line(format_args!("{ended} connection{} ended", if ended == 1 { "" } else { "s" }));
            Ok(())
        }
    }
}

impl SelectionArgs {
    fn query(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { pool, backend, client, listener } = self;
        let given = [("pool", pool), ("backend", backend), ("client", client), ("listener", listener)];
        given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

fn path<'a>(query: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    let pairs: Vec<_> =
        query.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))).collect();
    if pairs.is_empty() { PATH.to_owned() } else { format!("{PATH}?{}", pairs.join("&")) }
}

/// Page after page, until there are `limit`.
async fn fetch(admin: &AdminClient, path: &str, limit: usize) -> Result<OpenConnectionsReport, CliError> {
    let mark = if path.contains('?') { '&' } else { '?' };
    let mut all: Option<OpenConnectionsReport> = None;
    loop {
        let (had, after) = all.as_ref().map_or((0, String::new()), |all| {
            (all.connections.len(), all.next.as_ref().map_or(String::new(), |next| format!("&after={next}")))
        });
        let wanted = (limit - had).clamp(1, MOST_LISTED);
        let page: OpenConnectionsReport = admin.get(&format!("{path}{mark}limit={wanted}{after}")).await?;
        let all = match &mut all {
            None => all.insert(page),
            Some(all) => {
                all.connections.extend(page.connections);
                all.next = page.next;
                all
            }
        };
        if all.next.is_none() || all.connections.len() >= limit {
            return Ok(all.clone());
        }
    }
}

/// Asks the person at the terminal.
fn confirms(meant: usize) -> bool {
    let _ = write!(io::stderr(), "{meant} connections will be reset. Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn table(report: &OpenConnectionsReport) -> String {
    let head = ["ID", "CLIENT", "LISTENER", "POOL", "BACKEND", "AGE", "IDLE", "IN", "OUT", "REQUESTS", "SERVER NAME"];
    let rows: Vec<_> = once(head.map(str::to_owned)).chain(report.connections.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 11] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            5..=9 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    if report.next.is_some() {
        text += &format!("\n{} of {} connections; --limit N shows more\n", rows.len() - 1, report.matched);
    }
    text
}

/// The cells of its row.
pub(super) fn row(connection: &ConnectionReport) -> [String; 11] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let requests = if connection.mode == "http" { connection.requests.to_string() } else { "-".to_owned() };
    [
        connection.id.clone(),
        connection.client.clone(),
        connection.listener.clone(),
        or_dash(&connection.pool),
        or_dash(&connection.backend),
        uptime(connection.age_seconds).to_string(),
        uptime(connection.idle_seconds).to_string(),
        bytes(connection.bytes_in),
        bytes(connection.bytes_out),
        requests,
        or_dash(&connection.server_name),
    ]
}
