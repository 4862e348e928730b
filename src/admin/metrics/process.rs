//! What the process uses, as proc(5) has it: under Prometheus's standard names, and under lb's own.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::telemetry::metric::PREFIX;

use super::exposition::Exposition;

/// What is read for one scrape. `None`: it can't be read, as where /proc isn't mounted.
struct Usage {
    cpu: Duration,
    virtual_bytes: Option<u64>,
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
    threads: Option<u64>,
}

pub(super) fn write(started: SystemTime, text: &mut Exposition) {
    let usage = Usage::now();
    let limit = |resource| getrlimit(resource).current.map_or_else(|| "+Inf".to_owned(), |limit| limit.to_string());
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64().to_string();
    let rows = [
        ("cpu_seconds_total", "Processor time used, in seconds.", Some(usage.cpu.as_secs_f64().to_string())),
        ("virtual_memory_bytes", "Address space in use.", number(usage.virtual_bytes)),
        ("virtual_memory_max_bytes", "Address space that may be used.", Some(limit(Resource::As))),
        ("resident_memory_bytes", "Memory in use.", number(usage.resident_bytes)),
        ("open_fds", "Open files.", number(usage.open_files)),
        ("max_fds", "Files that may be open.", Some(limit(Resource::Nofile))),
        ("start_time_seconds", "When it started, in seconds since 1970.", Some(started)),
        ("threads", "Its threads.", number(usage.threads)),
    ];
    for prefix in ["", PREFIX] {
        for (name, help, value) in &rows {
            let Some(value) = value else { continue };
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            text.single(&format!("{prefix}process_{name}"), kind, help, value);
        }
    }
}

impl Usage {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let page = rustix::param::page_size() as u64;
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = statm.split(' ').map(|field| Some(field.parse::<u64>().ok()? * page));
        let entries = |path: &str| fs::read_dir(path).ok().map(|entries| entries.count() as u64);
        Self {
            cpu: Duration::try_from(cpu).unwrap_or_default(),
            virtual_bytes: pages.next().flatten(),
            resident_bytes: pages.next().flatten(),
            // Without the one by which they are counted.
            open_files: entries("/proc/self/fd").map(|files| files.saturating_sub(1)),
            threads: entries("/proc/self/task"),
        }
    }
}
