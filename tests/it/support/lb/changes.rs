//! What changes a running balancer: another configuration, another process in its place.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use super::super::sockets;
use super::{Lb, http, process, wait_for, wait_until};

/// What a process says that has started its successor, and that it has taken over.
const UPGRADED: &str = "upgraded: the new process accepts, this one ends with its connections";

impl Lb {
    /// Its own folder, which is its working directory.
    pub fn folder(&self) -> &Path {
        self.processes.folder.path()
    }

    /// The file of [`Lb::with_config`].
    pub fn config_file(&self) -> PathBuf {
        self.folder().join("test.yaml")
    }

    /// Writes its configuration file anew.
    pub fn rewrite(&self, yaml: &str) {
        fs::write(self.config_file(), yaml).expect("the folder is writable");
    }

    /// POSTs to the API: the status, and the result or the error.
    #[track_caller]
    pub fn post(&self, path: &str) -> (u16, String) {
        let answer = http::post(self.admin(), path, &[]);
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error} in {answer:?}"));
        let said = body["result"].as_str().or(body["error"].as_str());
        (answer.status, said.expect("a result or an error").to_owned())
    }

    /// Writes the file anew and reloads it, which must succeed: what was said about it.
    #[track_caller]
    pub fn reload_with(&self, yaml: &str) -> String {
        self.rewrite(yaml);
        let (status, said) = self.post("/api/v1/reload");
        assert_eq!(status, 200, "{said}");
        said
    }

    /// Writes the file anew and reloads it, which must fail: what was said about it.
    #[track_caller]
    pub fn fail_to_reload_with(&self, yaml: &str) -> String {
        self.rewrite(yaml);
        let (status, said) = self.post("/api/v1/reload");
        assert_eq!(status, 422, "{said}");
        said
    }

    /// Reloads of this result so far.
    #[track_caller]
    pub fn reloads(&self, result: &str) -> f64 {
        self.metrics().sum("config_reloads_total", &[("result", result)])
    }

    /// The API's report of a listener; null where there is none of that name.
    #[track_caller]
    pub fn listener(&self, name: &str) -> Value {
        let report = self.api("/api/v1/status");
        let listeners = report["listeners"].as_array().expect("a list");
        listeners.iter().find(|listener| listener["name"] == name).cloned().unwrap_or_default()
    }

    /// The address that a listener has now.
    #[track_caller]
    pub fn address_now(&self, listener: &str) -> SocketAddr {
        let report = self.listener(listener);
        report["addresses"][0].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {listener}"))
    }

    /// Upgrades it, and waits until the new process has taken over: from then on it is the one that is asked. Gives the
    /// process id of the one before.
    #[track_caller]
    pub fn upgrade(&mut self) -> u32 {
        let (before, upgrades) = (self.pid(), self.log_lines_with(UPGRADED).len());
        process::send(before, Signal::USR2);
        let line = wait_for("the new process takes over", || self.log_lines_with(UPGRADED).get(upgrades).cloned());
        let pid = line["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("the new process's id");
        assert_ne!(pid, before);
        self.successor = Some(pid);
        // Until its doors are closed, the one before may still let somebody in.
        wait_until("the one before accepts no more", || process::has_ended(before) || !sockets::listens(before));
        wait_until("it is ready", || http::get_from(self.admin(), "/readyz").is_ok_and(|answer| answer.status == 200));
        before
    }

    /// Sends a signal to one of its processes.
    pub fn signal_to(&self, pid: u32, signal: Signal) {
        process::send(pid, signal);
    }

    /// Waits until the process that was started first has ended: its exit code.
    #[track_caller]
    pub fn first_process_ended(&mut self) -> Option<i32> {
        wait_for("the first process ends", || self.processes.first.try_wait().expect("a child can be waited for"))
            .code()
    }
}
