//! The series of backends, of which there may be hundreds of thousands.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use crate::backends::{Backend, BackendSnapshot, BackendState, CheckResult, Evidence, Pool};
use crate::net::ConnectFailure;
use crate::telemetry::Answer;
use crate::telemetry::metric::{self, Family};

use super::exposition::{Exposition, label};

/// One backend as a scrape sees it.
struct Seen {
    /// `pool` and `backend`.
    labels: String,
    backend: Arc<Backend>,
    now: BackendSnapshot,
}

/// All series of the backends of all pools.
pub(super) fn write(pools: &[Arc<Pool>], text: &mut Exposition) {
    let now = Instant::now();
    let mut all = Vec::new();
    for pool in pools {
        let pool_label = label("pool", pool.name());
        for backend in pool.backends().iter() {
            let labels = format!("{pool_label},{}", label("backend", backend.label()));
            all.push(Seen { labels, backend: backend.clone(), now: backend.snapshot(now) });
        }
    }
    let all = &*all;
    one_each(text, metric::BACKEND_CONNECTIONS, all, |it| it.now.total);
    one_each(text, metric::UNANSWERED, all, |it| it.now.unanswered);
    one_each(text, metric::BACKEND_ACTIVE, all, |it| it.now.active);
    one_each(text, metric::BACKEND_IDLE, all, |it| it.now.idle);
    one_each(text, metric::BACKEND_UP, all, |it| u8::from(it.backend.is_usable()));
    one_each(text, metric::BACKEND_WEIGHT, all, |it| it.backend.weight());
    one_each(text, metric::BACKEND_RANK, all, |it| it.backend.rank());
    several_each(text, metric::BACKEND_STATE, all, "state", |it| {
        BackendState::ALL.iter().map(|state| (state.as_str(), u64::from(*state == it.now.state)))
    });
    several_each(text, metric::EJECTIONS, all, "reason", |it| {
        it.now.ejections.iter().map(|(reason, count)| (*reason, *count))
    });
    // Of what never happened there are no series: they would be most of a scrape. One of each backend is always there.
    several_each(text, metric::CONNECT_FAILURES, all, "reason", |it| {
        let all = ConnectFailure::ALL.iter().map(|failure| (*failure, it.now.connect_failures[*failure as usize]));
        let shown = all.filter(|(failure, count)| *count > 0 || *failure == ConnectFailure::Refused);
        shown.map(|(failure, count)| (failure.as_str(), count))
    });
    several_each(text, metric::BAD_ENDS, all, "reason", |it| {
        let all = Evidence::ALL.iter().map(|evidence| (evidence.as_str(), it.now.bad_ends[*evidence as usize]));
        all.filter(|(_, count)| *count > 0)
    });
    several_each(text, metric::HEALTH_CHECKS, all, "result", |it| {
        let results = CheckResult::ALL.iter().filter(|_| it.now.last_check.is_some());
        results.map(|result| (result.as_str(), it.now.checks[*result as usize]))
    });
    several_each(text, metric::BACKEND_BYTES, all, "direction", |it| {
        [("in", it.now.bytes.to_backend), ("out", it.now.bytes.to_client)].into_iter()
    });
    several_each(text, metric::BACKEND_REQUESTS, all, "code", |it| {
        let classes = Answer::ALL.iter().filter(|class| **class != Answer::Byte);
        classes.map(|class| (class.as_str(), it.now.answers[*class as usize])).filter(|(_, count)| *count > 0)
    });
    write_first_bytes(text, all);
}

/// A summary without quantiles: sum and count.
fn write_first_bytes(text: &mut Exposition, all: &[Seen]) {
    let family = metric::BACKEND_FIRST_BYTE;
    text.family(family);
    for Seen { labels, now, .. } in all {
        text.sample(&format!("{}_sum", family.name), labels, now.waited.as_secs_f64());
        text.sample(&format!("{}_count", family.name), labels, now.answers.iter().sum::<u64>());
    }
}

fn one_each<V: Display>(text: &mut Exposition, family: Family, all: &[Seen], value: impl Fn(&Seen) -> V) {
    text.family(family);
    all.iter().for_each(|it| text.sample(family.name, &it.labels, value(it)));
}

fn several_each<'a, I: Iterator<Item = (&'static str, u64)>>(
    text: &mut Exposition,
    family: Family,
    all: &'a [Seen],
    label: &str,
    values: impl Fn(&'a Seen) -> I,
) {
    text.family(family);
    for it in all {
        values(it).for_each(|(of, value)| text.sample_of(family.name, &it.labels, (label, of), value));
    }
}
