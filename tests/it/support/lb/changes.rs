//! What changes a running balancer: another configuration, another process in its place.

use std::fmt::Display;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use super::super::{PATIENCE, bound, sockets};
use super::{Answer, Lb, http, process, wait_for, wait_until};

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

    /// Asks the API with this method and body.
    #[track_caller]
    pub fn order(&self, method: &str, path: &str, body: &Value) -> Answer {
        let host = self.admin().to_string();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let asked = TcpStream::connect_timeout(&self.admin(), PATIENCE).and_then(|mut stream| {
            bound(&stream);
            http::request(&mut stream, method, path, &[("Host", &host)], &body)
        });
        asked.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Adds a backend to the pool `default`: an entry as the file has it.
    #[track_caller]
    pub fn add_backend(&self, entry: &Value) -> Value {
        let answer = self.order("POST", "/api/v1/pools/default/backends", entry);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    /// Changes a backend of the pool `default`.
    #[track_caller]
    pub fn patch_backend(&self, address: impl Display, changes: &Value) -> Value {
        let answer = self.order("PATCH", &format!("/api/v1/pools/default/backends/{address}"), changes);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Removes a backend of the pool `default`; `query` is empty, or begins with `?`.
    #[track_caller]
    pub fn remove_backend(&self, address: impl Display, query: &str) -> (u16, Value) {
        let answer = self.order("DELETE", &format!("/api/v1/pools/default/backends/{address}{query}"), &Value::Null);
        (answer.status, answer.json())
    }

    /// The addresses of the first pool's backends.
    #[track_caller]
    pub fn backends(&self) -> Vec<String> {
        let report = self.api("/api/v1/pools");
        let backends = report["pools"][0]["backends"].as_array().expect("a list");
        backends.iter().map(|backend| backend["address"].as_str().expect("a text").to_owned()).collect()
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

    /// An upgrade has put this process in its place: from now on it is the one that is asked.
    pub fn follow_to(&mut self, successor: u32) {
        self.successor = Some(successor);
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
