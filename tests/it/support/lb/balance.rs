//! What must hold of a balancer when everybody has left: each connection had one outcome, and nothing is left of it.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::super::process::{self, OpenFiles};
use super::{Lb, LbBuilder, http, wait_until, wait_until_equal};

/// Each worker has a pipe for splicing, from its start on or once the system grants it.
const PIPE_FILES_PER_WORKER: u64 = 2;

/// How often the open files of a balancer that has just started are counted.
const LOOKS_AT_FILES: usize = 5;

/// What a balancer has while nobody is connected.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AtRest {
    pub(super) files: OpenFiles,
    tasks: f64,
    /// Workers, and addresses that are listened on: with others, it has another number of files and tasks.
    shape: (u64, usize),
}

impl LbBuilder {
    /// What is left at its end is not checked: the test says why.
    pub fn unwatched(mut self) -> Self {
        self.is_watched = false;
        self
    }
}

impl Lb {
    /// Waits until it is ready: what it has then.
    pub(super) fn at_rest(&self) -> AtRest {
        let files = || process::open_files(self.pid());
        // A file that was read at the start may be open still: the least of some looks is what stays.
        let looks = (0..LOOKS_AT_FILES).map(|_| {
            thread::sleep(Duration::from_millis(1));
            files()
        });
        let mut files_now = looks.min_by_key(|files| files.others).expect("there are some looks");
        let Some(admin) = self.admin else { return AtRest { files: files_now, ..AtRest::default() } };
        wait_until("lb is ready", || http::get_from(admin, "/readyz").is_ok_and(|answer| answer.status == 200));
        if !self.is_watched {
            return AtRest::default();
        }
        let before = files_now.others;
        wait_until("the files of its start are closed", || {
            files_now = files();
            files_now.others <= before
        });
        let tasks = self.metrics().sum("tasks", &[]);
        assert!(tasks > 0.0, "every worker has some");
        AtRest { files: files_now, tasks, shape: self.shape() }
    }

    /// It has not failed in any task, and unless it was asked to stop, it serves and nothing is left of the test.
    pub(super) fn assert_good_end(&self) {
        if !self.is_watched {
            return;
        }
        let log = self.log_text();
        assert!(!log.contains("panicked"), "it panicked");
        // An upgrade that the test asked for by a signal of its own leaves another process in its place.
        let is_stopped = self.is_stopped.load(Ordering::Relaxed) || log.contains("stopping");
        let was_asked = is_stopped || (self.successor.is_none() && log.contains("upgraded"));
        if self.admin.is_some() && !was_asked {
            assert!(!process::has_ended(self.pid()), "it ended, and nobody had asked for it");
            self.assert_balanced();
        }
    }

    fn shape(&self) -> (u64, usize) {
        let status = self.api("/api/v1/status");
        let listeners = status["listeners"].as_array().expect("a list");
        let addresses = listeners.iter().map(|listener| listener["addresses"].as_array().map_or(0, Vec::len)).sum();
        (status["workers"].as_u64().expect("a number"), addresses)
    }

    /// Waits until all connections have ended, and all of them are accounted for.
    #[track_caller]
    pub fn assert_all_ended(&self) {
        wait_until("no connection is active", || self.metrics().sum("connections_active", &[]) == 0.0);
        let metrics = self.metrics();
        let accepted = metrics.sum("connections_accepted_total", &[]);
        let ended = metrics.sum("connections_closed_total", &[]) + metrics.sum("connections_rejected_total", &[]);
        assert!(accepted == ended, "{accepted} connections were accepted, {ended} have ended");
        // A backend's place is given back just after its connection is counted as closed.
        wait_until_equal("connections of backends", &0.0, || self.metrics().sum("backend_connections_active", &[]));
        assert_eq!(self.api("/api/v1/status")["connections"]["active"], 0);
    }

    /// The same; and no open file and no task may be left of them. Where a reload or an upgrade has changed its shape,
    /// there is nothing to compare these with.
    #[track_caller]
    pub fn assert_balanced(&self) {
        self.assert_all_ended();
        let shape @ (workers, _) = self.shape();
        if shape != self.at_rest.shape {
            return;
        }
        let now = || process::open_files(self.pid());
        let of = |name| self.metrics().sum(name, &[]);
        wait_until_equal("tasks, as at the start", &self.at_rest.tasks, || of("tasks"));
        let beyond_start = || now().others as f64 - self.at_rest.files.others as f64 - of("backend_connections_idle");
        // Fewer, where a health check may have been under way at the start; and a successor may do without the
        // descriptor that the first process was started with.
        let may_be_fewer = of("health_checks_total") > 0.0;
        let least = if may_be_fewer { f64::MIN } else { -f64::from(u8::from(self.successor.is_some())) };
        wait_until("it has as many open files as at the start, beside idle ones", || {
            (least..=0.0).contains(&beyond_start())
        });
        let more_pipes = now().pipes.saturating_sub(self.at_rest.files.pipes) as u64;
        assert!(more_pipes <= workers * PIPE_FILES_PER_WORKER, "{more_pipes} descriptors of pipes are left");
    }
}
