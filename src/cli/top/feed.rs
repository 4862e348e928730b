//! Asks the balancer, on a thread of its own: the screen answers keys however long it takes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::admin::{EndedReport, OpenConnectionsReport};

use super::super::admin::{AdminClient, runtime};
use super::super::client::Ask;
use super::super::error::CliError;
use super::super::status::{Reports, fetch_reports};

/// The time between two questions.
const PERIOD: Duration = Duration::from_secs(1);

/// What came from the balancer.
pub(super) enum News {
    Reports(Box<Reports>),
    /// Those that are watched, and by which path.
    Connections(String, OpenConnectionsReport),
    /// It gave no answer.
    Failed(String),
    /// What became of a change.
    Changed(String),
}

/// A change to make.
pub(super) struct Change {
    /// What it is, in words.
    pub(super) title: String,
    path: String,
    kind: Kind,
}

enum Kind {
    /// Is answered with words. The body is JSON; null: none.
    Order(Method, Value),
    EndConnections,
}

/// What the thread is told.
enum Order {
    Change(Change),
    /// To ask for these connections too, by their path; `None`: for none any more.
    Watch(Option<String>),
}

pub(super) struct Feed {
    news: Receiver<News>,
    orders: Sender<Order>,
}

impl Change {
    pub(super) fn order(method: Method, path: String, body: Value, title: String) -> Self {
        Self { title, path, kind: Kind::Order(method, body) }
    }

    /// The end of connections.
    pub(super) fn end_connections(path: String, title: String) -> Self {
        Self { title, path, kind: Kind::EndConnections }
    }

    /// Makes it: what became of it, in words.
    async fn make(self, admin: &AdminClient) -> String {
        let result = match self.kind {
            Kind::EndConnections => {
                admin.delete(&self.path).await.map(|EndedReport { ended }| format!("{ended} ended"))
            }
            Kind::Order(method, body) => {
                let body = if body.is_null() { String::new() } else { body.to_string() };
                admin.told(Ask { body, ..Ask::new(method, &self.path) }).await
            }
        };
        let what = result.unwrap_or_else(|error| error.to_string());
        format!("{}: {what}", self.title)
    }
}

impl Feed {
    /// Its thread ends with it, after the question under way.
    pub(super) fn start(admin: AdminClient) -> Result<Self, CliError> {
        let runtime = runtime()?;
        let (sender, news) = channel();
        let (orders, ordered) = channel();
        thread::spawn(move || {
            let mut watched: Option<String> = None;
            loop {
                let answer = match runtime.block_on(fetch_reports(&admin)) {
                    Ok(reports) => News::Reports(Box::new(reports)),
                    Err(error) => News::Failed(error.to_string()),
                };
                let connections = watched.as_ref().map(|path| match runtime.block_on(admin.get(path)) {
                    Ok(report) => News::Connections(path.clone(), report),
                    Err(error) => News::Failed(error.to_string()),
                });
                if [Some(answer), connections].into_iter().flatten().any(|news| sender.send(news).is_err()) {
                    return;
                }
                match ordered.recv_timeout(PERIOD) {
                    Ok(Order::Change(change)) => {
                        let _ = sender.send(News::Changed(runtime.block_on(change.make(&admin))));
                    }
                    Ok(Order::Watch(path)) => watched = path,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
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
        let _ = self.orders.send(Order::Change(change));
    }

    /// Asks for these connections too, by their path, or for none any more.
    pub(super) fn watch(&self, connections: Option<String>) {
        let _ = self.orders.send(Order::Watch(connections));
    }
}
