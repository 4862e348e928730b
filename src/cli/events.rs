//! `lb events`: what has happened to a running balancer, and what happens.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use crate::admin::{EventReport, EventsReport, StatusReport};

use super::admin::{AdminArgs, AdminClient, runtime};
use super::error::CliError;

/// The time between two questions.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Args, Clone, Debug)]
pub(super) struct EventsArgs {
    /// Go on with those that come, until interrupted; a balancer that is restarted or upgraded is followed, too
    #[arg(long, short)]
    follow: bool,
    /// Print an object of JSON for each, a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Up to where a process was read.
struct Place {
    pid: u32,
    last: u64,
}

pub(super) fn events(args: &EventsArgs) -> Result<(), CliError> {
    let admin = args.admin.admin()?;
    runtime()?.block_on(async {
        let mut place = Place { pid: 0, last: 0 };
        let mut events = news(&admin, &mut place).await?;
        loop {
            if events.iter().try_for_each(|event| print(event, args.json)).is_err() {
                // The reader of the output has gone.
                return Ok(());
            }
            if !args.follow {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
            // While nobody answers, nothing is known.
            events = news(&admin, &mut place).await.unwrap_or_default();
        }
    })
}

/// Those that have come since; all of another process.
async fn news(admin: &AdminClient, place: &mut Place) -> Result<Vec<EventReport>, CliError> {
    let StatusReport { pid, .. } = admin.report("/api/v1/status").await?;
    let after = if pid == place.pid { place.last } else { 0 };
    let EventsReport { events } = admin.report(&format!("/api/v1/events?after={after}")).await?;
    *place = Place { pid, last: events.last().map_or(after, |event| event.id) };
    Ok(events)
}

fn print(event: &EventReport, as_json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if as_json {
        writeln!(output, "{}", serde_json::to_string(event).expect("texts and numbers"))?;
    } else {
        let EventReport { time, level, event, message, pool, backend, listener, detail, .. } = event;
        let where_to = [listener, pool, backend].into_iter().flatten().map(|name| format!(" {name}"));
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        let level = level.to_uppercase();
        writeln!(output, "{time} {level:<5} {event}{}: {message}{detail}", where_to.collect::<String>())?;
    }
    output.flush()
}
