//! What `bench` tells: as JSON, or as text that a person likes to read.

use super::topology::Machine;
use crate::show::align;
use crate::units::{bytes, count, plural};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;

/// `bench --json`. Field names are a contract, as those of the reports.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    /// Round trips, in nanoseconds, each from the time it was to begin.
    pub(super) latency: Latencies,
    pub(super) throughput: Vec<Point>,
    /// For the plots.
    #[serde(skip)]
    pub(super) histograms: [Histogram<u64>; 2],
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Settings {
    pub(super) rounds: u32,
    pub(super) capacity: u64,
    pub(super) latency_rate: f64,
    pub(super) latency_size: u32,
    /// Time of one round of either measurement.
    pub(super) latency_ms: u64,
    pub(super) throughput_ms: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Latencies {
    pub(super) bus: Percentiles,
    pub(super) bare: Percentiles,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Percentiles {
    pub(super) trips: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p99_9: u64,
    pub(super) p99_99: u64,
    pub(super) max: u64,
}

impl Percentiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            trips: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max(),
        }
    }
}

/// Throughput of one payload size and number of readers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) size: usize,
    pub(super) readers: usize,
    /// Whether the writer and each reader had a processor of its own.
    pub(super) own_processors: bool,
    pub(super) bus: Rates,
    pub(super) bare: Rates,
    /// The bus's median as a share of the bare lines'.
    pub(super) share: f64,
}

/// Records a second that the writer published and every reader read, over the rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rates {
    /// The median.
    pub(super) records: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
    /// Payload of the median in bytes a second.
    pub(super) bytes: f64,
}

impl Rates {
    pub(super) fn of(mut rounds: Vec<f64>, size: usize) -> Self {
        rounds.sort_unstable_by(f64::total_cmp);
        let middle = rounds.len() / 2;
        let median = if rounds.len() % 2 == 1 { rounds[middle] } else { (rounds[middle - 1] + rounds[middle]) / 2.0 };
        Self { records: median, lowest: rounds[0], highest: rounds[rounds.len() - 1], bytes: median * size as f64 }
    }
}

impl Report {
    /// Who measured what where, in one line: for the plots as well.
    pub(super) fn headline(&self) -> String {
        let machine = &self.machine;
        let cores = plural(machine.cores as u64, "core");
        format!("lapwing {}, {}, {cores}, processors {}", self.version, machine.model, list(&machine.cpus))
    }
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// Nanoseconds with three digits or so.
pub(super) fn nanoseconds(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{} ns", count(ns)),
        10_000..10_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}

fn millions(rate: f64) -> String {
    format!("{:.2} M/s", rate / 1e6)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, settings, latency, throughput, .. } = self;
        let governor = match machine.governors.as_slice() {
            [] => "frequency not set by this system".to_owned(),
            words => format!("governor {}", words.join(", ")),
        };
        writeln!(
            f,
            "{}{}: {} in {}, {}; {}; {governor}; isolated: {}",
            machine.model,
            if machine.hypervisor { " (virtual machine)" } else { "" },
            plural(machine.processors as u64, "processor"),
            plural(machine.cores as u64, "core"),
            plural(machine.sockets as u64, "socket"),
            machine.kernel,
            if machine.isolated.is_empty() { "none" } else { &machine.isolated }
        )?;
        writeln!(
            f,
            "used: processors {}{}{}; ring {}; {} of each measurement, the bus and bare lines in turn\n",
            list(&machine.cpus),
            if machine.shared_cache { ", one last-level cache" } else { ", several last-level caches" },
            if machine.shared_core { ", threads of one core among them" } else { "" },
            bytes(settings.capacity),
            plural(u64::from(settings.rounds), "round"),
        )?;

        writeln!(
            f,
            "round trip between two processes, {} bytes each way, {} a second, from the time each was to begin",
            settings.latency_size,
            count(settings.latency_rate as u64)
        )?;
        let head = ["", "P50", "P90", "P99", "P99.9", "P99.99", "MAX", "TRIPS"].map(str::to_owned);
        let row = |name: &str, found: &Percentiles| {
            let Percentiles { trips, p50, p90, p99, p99_9, p99_99, max } = *found;
            let [a, b, c, d, e, g] = [p50, p90, p99, p99_9, p99_99, max].map(nanoseconds);
            [name.to_owned(), a, b, c, d, e, g, count(trips)]
        };
        let rows = [head, row("bus", &latency.bus), row("bare lines", &latency.bare)];
        let left = [true, false, false, false, false, false, false, false];
        writeln!(f, "{}", align(&rows, &left))?;

        writeln!(
            f,
            "throughput of one writer, every record read and checked by every reader; median (lowest to highest round)"
        )?;
        let head = ["BYTES", "READERS", "BUS", "", "", "BARE LINES", "OF BARE", ""].map(str::to_owned);
        let rows = throughput.iter().map(|point| {
            [
                point.size.to_string(),
                point.readers.to_string(),
                millions(point.bus.records),
                format!("({:.2} to {:.2})", point.bus.lowest / 1e6, point.bus.highest / 1e6),
                format!("{:.2} GB/s", point.bus.bytes / 1e9),
                millions(point.bare.records),
                format!("{:.0} %", point.share * 100.0),
                if point.own_processors { String::new() } else { "sharing processors".to_owned() },
            ]
        });
        let left = [false, false, false, true, false, false, false, true];
        f.write_str(&align(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_rounds() {
        let rates = Rates::of(vec![3.0, 1.0, 2.0], 10);
        assert_eq!((rates.records, rates.lowest, rates.highest, rates.bytes), (2.0, 1.0, 3.0, 20.0));
        assert_eq!(Rates::of(vec![4.0, 2.0], 1).records, 3.0);
        assert_eq!(Rates::of(vec![4.0], 1).records, 4.0);
    }

    #[test]
    fn times_have_three_digits_or_so() {
        let shown = [0, 9_999, 10_000, 9_999_999, 10_000_000].map(nanoseconds);
        assert_eq!(shown, ["0 ns", "9,999 ns", "10.0 µs", "10000.0 µs", "10.0 ms"]);
    }
}
