//! What it writes: lines of the access log, and of its own.

use std::fmt::Display;

use serde_json::Value;

use super::{Lb, wait_for, wait_until_equal};

impl Lb {
    /// Waits until that many connections are in the access log, and gives their lines.
    #[track_caller]
    pub fn access_log(&self, connections: usize) -> Vec<Value> {
        let lines = wait_for(&format!("{connections} lines in the access log"), || {
            Some(self.output.json()).filter(|lines| lines.len() >= connections)
        });
        assert_eq!(lines.len(), connections, "lines in the access log");
        lines
    }

    /// Waits for the one connection that there was, and gives its line in the access log.
    #[track_caller]
    pub fn only_access(&self) -> Value {
        self.access_log(1).remove(0)
    }

    /// Waits until a connection of this client is in the access log, and gives the first such line.
    #[track_caller]
    pub fn access_of(&self, client: impl Display) -> Value {
        let client = client.to_string();
        let is_its = |line: &Value| line["client"] == client.as_str();
        wait_for(&format!("a line of {client} in the access log"), || self.output.json().into_iter().find(is_its))
    }

    /// Waits until that many connections were rejected for this reason.
    #[track_caller]
    pub fn wait_for_rejections(&self, reason: &str, times: usize) {
        wait_until_equal(reason, &(times as f64), || {
            self.metrics().sum("connections_rejected_total", &[("reason", reason)])
        });
    }

    /// Lines of the program's own log whose message is this.
    pub fn log_lines_with(&self, message: &str) -> Vec<Value> {
        self.log.json().into_iter().filter(|line| line["message"] == message).collect()
    }

    /// Waits until its log has so many lines with this message, and gives them all. The log may come after what it is
    /// about.
    #[track_caller]
    pub fn wait_for_log(&self, message: &str, lines: usize) -> Vec<Value> {
        let title = format!("`{message}` is logged {lines} times");
        wait_for(&title, || Some(self.log_lines_with(message)).filter(|logged| logged.len() >= lines))
    }

    /// Lines in the access log so far.
    pub fn output_lines(&self) -> usize {
        self.output.json().len()
    }

    /// What it wrote to standard error.
    pub fn log_text(&self) -> String {
        self.log.text()
    }
}
