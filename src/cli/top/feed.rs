//! Asks the balancer, on a thread of its own: the screen answers keys however long it takes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::super::admin::{AdminClient, runtime};
use super::super::error::CliError;
use super::super::status::{Reports, fetch_reports};

/// The time between two questions.
const PERIOD: Duration = Duration::from_secs(1);

/// What came from the balancer.
pub(super) enum News {
    Reports(Box<Reports>),
    /// It gave no answer.
    Failed(String),
    /// What became of a change.
    Changed(String),
}

/// A change to make.
pub(super) struct Change {
    pub(super) path: String,
    /// What it is, in words.
    pub(super) title: String,
}

pub(super) struct Feed {
    news: Receiver<News>,
    orders: Sender<Change>,
}

impl Feed {
    /// Its thread ends with it, after the question under way.
    pub(super) fn start(admin: AdminClient) -> Result<Self, CliError> {
        let runtime = runtime()?;
        let (sender, news) = channel();
        let (orders, changes) = channel();
        thread::spawn(move || {
            loop {
                let answer = match runtime.block_on(fetch_reports(&admin)) {
                    Ok(reports) => News::Reports(Box::new(reports)),
                    Err(error) => News::Failed(error.to_string()),
                };
                if sender.send(answer).is_err() {
                    return;
                }
                let Change { path, title } = match changes.recv_timeout(PERIOD) {
                    Ok(change) => change,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                let said = match runtime.block_on(admin.change(&path)) {
                    Ok(state) => format!("{title}: {state}"),
                    Err(error) => format!("{title}: {error}"),
                };
                let _ = sender.send(News::Changed(said));
            }
        });
        Ok(Self { news, orders })
    }

    /// What has come since the last look.
    pub(super) fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }

    pub(super) fn order(&self, change: Change) {
        // The thread is there as long as this is.
        let _ = self.orders.send(change);
    }
}
