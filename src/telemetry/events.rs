//! What happened: the lines of the log that have a field `event`, kept for those who look later. Whoever logs one says
//! so by that field, and does nothing else.

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Context, Layer};

/// The older ones are dropped.
const MOST_EVENTS: usize = 1000;
/// Of each text: errors quote what backends say.
const MOST_TEXT_BYTES: usize = 512;
/// The field that makes a line an event, and says of which kind.
const KIND: &str = "event";

/// Of the whole process, as the log is.
static EVENTS: Mutex<Events> = Mutex::new(Events { last_id: 0, kept: VecDeque::new() });

/// One line of the log that is an event.
#[derive(Clone, Debug)]
pub struct PastEvent {
    /// 1 for the first since the start, then one more each.
    pub id: u64,
    pub at: SystemTime,
    /// A word: `ejected`, `pool_down` …
    pub kind: String,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    pub message: String,
    pub pool: Option<String>,
    pub backend: Option<String>,
    pub listener: Option<String>,
    /// The other fields as text.
    pub detail: String,
}

struct Events {
    last_id: u64,
    kept: VecDeque<PastEvent>,
}

/// Those of a later id than `id`, in their order.
pub fn events_after(id: u64) -> Vec<PastEvent> {
    lock().kept.iter().filter(|event| event.id > id).cloned().collect()
}

/// Keeps the events among the lines of the log.
pub(super) struct EventLayer;

impl EventLayer {
    /// What it looks at: decided once for each place that logs, not for each line.
    pub(super) fn filter() -> FilterFn {
        FilterFn::new(is_kept as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::INFO)
    }
}

fn is_kept(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.fields().field(KIND).is_some()
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            _ => "info",
        };
        let mut fields = Fields(PastEvent {
            id: 0,
            at: SystemTime::now(),
            kind: String::new(),
            level,
            message: String::new(),
            pool: None,
            backend: None,
            listener: None,
            detail: String::new(),
        });
        event.record(&mut fields);
        lock().keep(fields.0);
    }
}

impl Events {
    fn keep(&mut self, event: PastEvent) {
        self.last_id += 1;
        if self.kept.len() == MOST_EVENTS {
            self.kept.pop_front();
        }
        self.kept.push_back(PastEvent { id: self.last_id, ..event });
    }
}

/// A thread that panicked while it held the lock left whole values.
fn lock() -> MutexGuard<'static, Events> {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Fields(PastEvent);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let end =
            value.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MOST_TEXT_BYTES).last();
        let value = &value[..end.unwrap_or(0)];
        let event = &mut self.0;
        match field.name() {
            KIND => value.clone_into(&mut event.kind),
            "message" => value.clone_into(&mut event.message),
            "pool" => event.pool = Some(value.to_owned()),
            "backend" => event.backend = Some(value.to_owned()),
            "listener" => event.listener = Some(value.to_owned()),
            name => {
                let comma = if event.detail.is_empty() { "" } else { ", " };
                // The text alone says what it is.
                let name =
                    if matches!(name, "reason" | "error" | "states" | "changes") { "" } else { &format!("{name} ") };
                let _ = write!(event.detail, "{comma}{name}{value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_are_kept() {
        let mut events = Events { last_id: 0, kept: VecDeque::new() };
        let event = PastEvent {
            id: 0,
            at: SystemTime::now(),
            kind: "ejected".to_owned(),
            level: "warn",
            message: String::new(),
            pool: None,
            backend: None,
            listener: None,
            detail: String::new(),
        };
        (0..MOST_EVENTS + 7).for_each(|_| events.keep(event.clone()));
        let ids: Vec<u64> = events.kept.iter().map(|event| event.id).collect();
        assert_eq!((ids.len(), ids[0], ids[MOST_EVENTS - 1]), (MOST_EVENTS, 8, MOST_EVENTS as u64 + 7));
    }
}
