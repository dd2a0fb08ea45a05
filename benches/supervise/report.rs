//! The report: a table for people and the same as JSON for machines.

use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// One measured thing.
struct Row {
    name: String,
    unit: &'static str,
    stigmer: f64,
    /// What the bare loop needs for the same, where it can do the same.
    bare: Option<f64>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.bare.filter(|bare| *bare > 0.0).map(|bare| self.stigmer / bare)
    }
}

/// All rows, in the order in which they were measured.
pub(crate) struct Report {
    quick: bool,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report. A quick one says so, lest anybody quote it.
    pub(crate) fn new(quick: bool) -> Self {
        Self { quick, rows: Vec::new() }
    }

    /// Median and 99th percentile of many times.
    pub(crate) fn percentiles(&mut self, name: &str, stigmer: &[Duration], bare: &[Duration]) {
        for percent in [50, 99] {
            self.time(
                &format!("{name}, p{percent}"),
                percentile(stigmer, percent),
                percentile(bare, percent),
            );
        }
    }

    /// A time beside that of the bare loop.
    pub(crate) fn time(&mut self, name: &str, stigmer: Duration, bare: Duration) {
        self.push(name, "ms", milliseconds(stigmer), Some(milliseconds(bare)));
    }

    /// A time that the bare loop has nothing to set beside.
    pub(crate) fn single(&mut self, name: &str, stigmer: Duration) {
        self.push(name, "ms", milliseconds(stigmer), None);
    }

    /// Anything else.
    pub(crate) fn number(&mut self, name: &str, stigmer: f64, unit: &'static str) {
        self.push(name, unit, stigmer, None);
    }

    fn push(&mut self, name: &str, unit: &'static str, stigmer: f64, bare: Option<f64>) {
        self.rows.push(Row { name: name.to_owned(), unit, stigmer, bare });
    }

    /// A table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        if self.quick {
            text.push_str(
                "A quick run: it shows that everything works, and no number to quote.\n\n",
            );
        }
        let _ = writeln!(text, "Linux {}, {} cores, stigmer {}.\n", kernel(), cores(), version());
        text.push_str("| | stigmer | bare loop | ratio |\n|---|--:|--:|--:|\n");
        for row in &self.rows {
            let bare =
                row.bare.map_or_else(String::new, |bare| format!("{} {}", short(bare), row.unit));
            let ratio = row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let _ = writeln!(
                text,
                "| {} | {} {} | {bare} | {ratio} |",
                row.name,
                short(row.stigmer),
                row.unit
            );
        }
        text
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> String {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name,
                    "unit": row.unit,
                    "stigmer": row.stigmer,
                    "bare": row.bare,
                    "ratio": row.ratio(),
                })
            })
            .collect();
        let report = json!({
            "schema_version": 1,
            "stigmer": version(),
            "quick": self.quick,
            "kernel": kernel(),
            "cores": cores(),
            "rows": rows,
        });
        format!("{report:#}\n")
    }
}

/// The median; zero of nothing.
pub(crate) fn median(times: impl Iterator<Item = Duration>) -> Duration {
    percentile(&times.collect::<Vec<_>>(), 50)
}

/// The smallest time that at least `percent` of all do not exceed; zero of nothing.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Three digits that matter.
fn short(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn kernel() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
