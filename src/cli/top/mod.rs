//! `lb top`: a running balancer live, on the whole terminal. It asks the admin API each second, as the page does.

mod connections;
mod entry;
mod feed;
mod interrupted;
mod rows;
mod screen;
mod state;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::admin::AdminArgs;
use super::error::CliError;
use feed::Feed;
use interrupted::Interrupted;
use state::{Top, Wish};

/// Keys are looked for so long, then what the balancer has answered.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args, Clone, Debug)]
pub(super) struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn top(args: &TopArgs) -> Result<(), CliError> {
    if !io::stdout().is_terminal() {
        return Err(CliError::NoTerminal(io::ErrorKind::Unsupported.into()));
    }
    let feed = Feed::start(args.admin.admin()?)?;
    let interrupted = Interrupted::watch()?;
    let mut terminal = ratatui::try_init().map_err(CliError::NoTerminal)?;
    let ended = show(&mut terminal, &feed, &interrupted);
    let restored = ratatui::try_restore();
    ended.and(restored).map_err(CliError::NoTerminal)
}

/// Until the user has enough.
fn show(terminal: &mut DefaultTerminal, feed: &Feed, interrupted: &Interrupted) -> io::Result<()> {
    let mut top = Top::default();
    while !interrupted.has_come() {
        feed.news().for_each(|news| top.take(news));
        terminal.draw(|frame| screen::draw(frame, &mut top))?;
        if !event::poll(LOOK)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match top.press(key) {
                Some(Wish::End) => return Ok(()),
                Some(Wish::Change(change)) => feed.order(change),
                Some(Wish::Watch(connections)) => feed.watch(connections),
                None => {}
            },
            // The next draw asks for the size.
            _ => {}
        }
    }
    Ok(())
}
