//! Prometheus's text format, written directly: for series of which there are many, and for histograms, which end with
//! what they are of. The exporter would keep each series of a backend with its name and labels.

use std::fmt::{Display, Write as _};

use crate::telemetry::metric::Family;
use crate::telemetry::{Histogram, HistogramTotals};

/// The text of a scrape.
pub(super) struct Exposition(String);

impl Exposition {
    /// Continues a text.
    pub(super) fn after(text: String) -> Self {
        Self(text)
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, Family { name, kind, help }: Family) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    }

    /// One sample. `labels` are written already: see [`label`].
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        self.write(format_args!("{name}{{{labels}}} {value}\n"));
    }

    /// One sample with a label more, whose value needs no escapes.
    pub(super) fn sample_of(&mut self, name: &str, labels: &str, (label, of): (&str, &str), value: impl Display) {
        self.write(format_args!("{name}{{{labels},{label}=\"{of}\"}} {value}\n"));
    }

    pub(super) fn histograms<'a>(
        &mut self,
        family: Family,
        label_name: &str,
        series: impl Iterator<Item = (&'a str, &'a Histogram)>,
    ) {
        let name = family.name;
        self.family(family);
        for (value, histogram) in series {
            let labels = label(label_name, value);
            let HistogramTotals { buckets, count, sum } = histogram.totals();
            for (bound, count) in buckets {
                self.write(format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}\n"));
            }
            self.write(format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n"));
            self.write(format_args!("{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n"));
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a String takes every text");
    }
}

/// A label with its value, escaped as the format wants it.
pub(super) fn label(name: &str, value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        assert_eq!(label("backend", "unix:/a\"b\\c\nd"), r#"backend="unix:/a\"b\\c\nd""#);
    }
}
