//! A scrape of /metrics, as numbers.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub text: String,
    pub samples: Vec<Sample>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { text: text.to_owned(), samples: lines.map(sample).collect() }
    }

    /// The sum of the series of `name` that have all of `labels`; 0 where there is none. The `lb_` is understood.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let name = format!("lb_{name}");
        let has = |sample: &Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|is| is == value))
        };
        self.samples.iter().filter(|sample| sample.name == name && has(sample)).map(|sample| sample.value).sum()
    }

    /// The values that `label` takes in the series of `name`.
    pub fn label_values(&self, name: &str, label: &str) -> Vec<String> {
        let name = format!("lb_{name}");
        let mut values: Vec<String> = self
            .samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter_map(|sample| sample.labels.get(label).cloned())
            .collect();
        values.sort();
        values.dedup();
        values
    }

    /// accepted = closed + active + rejected, of every listener.
    #[track_caller]
    pub fn assert_conserved(&self) {
        for listener in self.label_values("connections_accepted_total", "listener") {
            let of = |name| self.sum(name, &[("listener", &listener)]);
            let (accepted, active) = (of("connections_accepted_total"), of("connections_active"));
            let (closed, rejected) = (of("connections_closed_total"), of("connections_rejected_total"));
            let ended = closed + rejected;
            assert!(active >= 0.0, "listener {listener}: active is {active}");
            assert!(
                accepted == ended + active,
                "listener {listener}: accepted {accepted} is not closed {closed} + active {active} + \
                 rejected {rejected}"
            );
        }
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a series and its value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (series, ""),
    };
    // No label value of the tests holds a comma or a quote.
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    let labels = pairs.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect();
    Sample { name: name.to_owned(), labels, value: value.parse().expect("a number") }
}
