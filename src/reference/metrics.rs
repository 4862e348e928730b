//! docs/reference/metrics.md, from the table of metrics and the words of their labels.

use crate::admin::AdminRefusal;
use crate::backends::{BackendState, CheckResult, Evidence};
use crate::net::ConnectFailure;
use crate::telemetry::metric::{LATENCY_BUCKETS, LIFE_BUCKETS, TABLE};
use crate::telemetry::{AcceptError, Cause, HandshakeFailure, Rejection};

use super::markdown::{Page, code};

/// Words, each with its meaning.
type Words = &'static [(&'static str, &'static str)];

/// Metrics of which a label's words are explained here.
const WORDS: [(&str, &str, Words); 9] = [
    ("lb_connections_closed_total", "reason", Cause::MEANINGS),
    ("lb_connections_rejected_total", "reason", Rejection::MEANINGS),
    ("lb_accept_errors_total", "reason", AcceptError::MEANINGS),
    ("lb_backend_connect_failures_total", "reason", ConnectFailure::MEANINGS),
    ("lb_backend_bad_ends_total", "reason", Evidence::MEANINGS),
    ("lb_backend_state", "state", BackendState::MEANINGS),
    ("lb_health_checks_total", "result", CheckResult::MEANINGS),
    ("lb_tls_handshakes_total", "result", HandshakeFailure::MEANINGS),
    ("lb_admin_refused_total", "reason", AdminRefusal::MEANINGS),
];

pub(super) fn page() -> String {
    let mut page = Page::new(
        "Metrics",
        "What `GET /metrics` of the admin server has, in Prometheus's text format. In every scrape, for each listener, \
         accepted = closed + rejected + active. Counters of bytes grow while a connection is open. A series of a \
         backend ends with the backend.",
    );
    let rows = TABLE.iter().map(|metric| {
        let labels: Vec<_> = metric.labels.iter().map(|label| code(label)).collect();
        [
            code(metric.name),
            format!("{} {}", metric.kind, labels.join(", ")).trim_end().to_owned(),
            metric.help.to_owned(),
        ]
    });
    page.table(["Name", "Type, labels", "Meaning"], rows);
    page.paragraph(
        "Beside these, the process's own as `metrics-process` names them: `lb_process_cpu_seconds_total`, \
         `lb_process_resident_memory_bytes`, `lb_process_open_fds`, `lb_process_threads` and others.",
    );
    for (name, label, words) in WORDS {
        page.heading(&format!("{} of {}", code(label), code(name)));
        page.table(["Word", "Meaning"], words.iter().map(|(word, meaning)| [code(word), meaning.trim().to_owned()]));
    }
    page.heading("Buckets");
    page.paragraph(&format!(
        "Durations of connects, first bytes and requests, in seconds: {}.",
        numbers(LATENCY_BUCKETS)
    ));
    page.paragraph(&format!("Lives of connections, in seconds: {}.", numbers(LIFE_BUCKETS)));
    page.finish()
}

fn numbers(buckets: &[f64]) -> String {
    buckets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
