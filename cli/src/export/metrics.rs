//! The metrics: names, help, units and where each number comes from. Names and labels are a contract with dashboards and alerts.

use super::gather::View;
use crate::failure::Failure;
use crate::sight::Look;
use lapwing::{Health, ReaderHealth, ReaderInfo, WriterState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// Writes everything as OpenMetrics text.
pub(super) fn encode(views: Vec<View>) -> Result<String, Failure> {
    let mut registry = Registry::with_prefix("lapwing");
    registry.register_collector(Box::new(Buses(views)));
    let mut text = String::new();
    text::encode(&mut text, &registry).map_err(|error| Failure::other(format!("cannot write metrics: {error}")))?;
    Ok(text)
}

/// How a number is found in a `T`; `None` where it is not known.
enum Value<T> {
    Counter(fn(&T) -> Option<u64>),
    Gauge(fn(&T) -> Option<f64>),
}

struct Metric<T> {
    name: &'static str,
    help: &'static str,
    unit: Option<&'static str>,
    value: Value<T>,
}

const fn metric<T>(name: &'static str, unit: Option<&'static str>, value: Value<T>, help: &'static str) -> Metric<T> {
    Metric { name, help, unit, value }
}

use Value::{Counter, Gauge};

type OfBus = Look;
type OfReader = (ReaderInfo, ReaderHealth, u64);

const RECORDS: Option<&str> = Some("records");
const BYTES: Option<&str> = Some("bytes");
const SECONDS: Option<&str> = Some("seconds");
const RATIO: Option<&str> = Some("ratio");

const BUS: [Metric<OfBus>; 15] = [
    metric("ring_capacity", BYTES, Gauge(|look| Some(look.snapshot.capacity as f64)), "Bytes of the ring"),
    metric("reader_slots", None, Gauge(|look| Some(f64::from(look.snapshot.slots))), "Slots of the reader table"),
    metric(
        "readers_registered",
        None,
        Gauge(|look| Some(look.registered()? as f64)),
        "Slots in use, whoever is behind them",
    ),
    metric(
        "readers_served",
        None,
        Gauge(|look| Some(look.served()? as f64)),
        "Readers that records reach: live or lagging",
    ),
    metric(
        "writer_epoch",
        None,
        Gauge(|look| Some(look.snapshot.writer.epoch as f64)),
        "How many writers the bus has had",
    ),
    metric(
        "oldest_sequence",
        None,
        Gauge(|look| Some(look.snapshot.oldest as f64)),
        "Oldest sequence that can be replayed",
    ),
    metric("next_sequence", None, Gauge(|look| Some(look.snapshot.sequence as f64)), "Sequence of the next record"),
    metric(
        "published",
        RECORDS,
        Counter(|look| Some(look.snapshot.stats.published)),
        "Records published since the bus was created",
    ),
    metric(
        "published",
        BYTES,
        Counter(|look| Some(look.snapshot.stats.bytes)),
        "Payload published since the bus was created; brought up to date about once a stripe",
    ),
    metric(
        "writer_waits",
        None,
        Counter(|look| Some(look.snapshot.stats.waits)),
        "How often the writer slept for readers in its way",
    ),
    metric(
        "overrun_episodes",
        None,
        Counter(|look| Some(look.snapshot.stats.episodes)),
        "How often readers got in the writer's way",
    ),
    metric(
        "warnings",
        None,
        Counter(|look| Some(look.snapshot.stats.warnings)),
        "Early warnings: a reader's lag crossed 50, 75 or 90 percent of the ring",
    ),
    metric("evictions", None, Counter(|look| Some(look.snapshot.stats.evictions)), "Readers evicted by the writer"),
    metric(
        "reaped_readers",
        None,
        Counter(|look| Some(look.snapshot.stats.reaped)),
        "Slots of dead readers reclaimed by the writer",
    ),
    metric(
        "takeovers",
        None,
        Counter(|look| Some(look.snapshot.stats.takeovers)),
        "Writers that took over from one that did not close the stream",
    ),
];

const READER: [Metric<OfReader>; 12] = [
    metric(
        "reader_lag",
        BYTES,
        Gauge(|(reader, ..)| Some(reader.lag_bytes as f64)),
        "Bytes of the ring the reader has yet to read",
    ),
    metric(
        "reader_lag",
        RECORDS,
        Gauge(|(reader, ..)| Some(reader.lag_records as f64)),
        "Records the reader has yet to read",
    ),
    metric(
        "reader_lag",
        RATIO,
        Gauge(|(reader, _, capacity)| Some(reader.lag_bytes as f64 / *capacity as f64)),
        "Share of the ring the reader has yet to read, 0 to 1",
    ),
    metric(
        "reader_served",
        None,
        Gauge(|(_, health, _)| Some(f64::from(u8::from(health.health.is_served())))),
        "Whether records reach the reader: registered is not enough",
    ),
    metric(
        "reader_stuck",
        SECONDS,
        Gauge(|(_, health, _)| Some(health.stuck_for.as_secs_f64())),
        "How long the reader has been behind without moving",
    ),
    metric(
        "reader_pid",
        None,
        Gauge(|(reader, ..)| Some(f64::from(reader.pid))),
        "Process number, as the reader's own namespace has it",
    ),
    metric(
        "reader_holds_while_away",
        None,
        Gauge(|(reader, ..)| Some(f64::from(u8::from(reader.hold)))),
        "Whether the reader holds the writer up while it is away",
    ),
    metric(
        "reader_evictable",
        None,
        Gauge(|(reader, ..)| Some(f64::from(u8::from(reader.evictable)))),
        "Whether the reader can be evicted now",
    ),
    metric("reader_delivered", RECORDS, Counter(|(reader, ..)| Some(reader.delivered)), "Records the reader has read"),
    metric(
        "reader_missed",
        RECORDS,
        Counter(|(reader, ..)| Some(reader.missed)),
        "Records the reader missed, each told to it",
    ),
    metric(
        "reader_evictions",
        None,
        Counter(|(reader, ..)| Some(reader.evictions)),
        "How often the reader was evicted",
    ),
    metric(
        "reader_sleeps",
        None,
        Counter(|(reader, ..)| Some(reader.waits)),
        "How often the reader slept for want of records",
    ),
];

const WRITER_STATES: [WriterState; 5] =
    [WriterState::Never, WriterState::Alive, WriterState::Absent, WriterState::Closed, WriterState::Replaced];

type Label = (&'static str, String);

#[derive(Debug)]
struct Buses(Vec<View>);

impl Buses {
    /// Buses that can be looked at, each with its label.
    fn seen(&self) -> impl Iterator<Item = (Label, &Look)> {
        self.0.iter().filter_map(|view| {
            let look = view.bus.as_ref()?;
            Some((("bus", view.path.clone()), look))
        })
    }

    /// All readers, each with its labels. The slot is among them: a scribbled table may claim one id twice.
    fn readers(&self) -> Vec<(Vec<Label>, OfReader)> {
        let mut all = Vec::new();
        for (bus, look) in self.seen() {
            for (reader, health) in look.pairs() {
                let labels = vec![
                    bus.clone(),
                    ("slot", reader.slot.to_string()),
                    ("id", reader.id.to_string()),
                    ("name", reader.name.clone().unwrap_or_default()),
                    ("class", reader.class.to_string()),
                ];
                all.push((labels, (reader.clone(), *health, look.snapshot.capacity)));
            }
        }
        all
    }
}

fn write<T>(encoder: &mut DescriptorEncoder<'_>, metric: &Metric<T>, of: &[(Vec<Label>, &T)]) -> fmt::Result {
    let unit = metric.unit.map(|unit| Unit::Other(unit.to_owned()));
    let kind = match metric.value {
        Counter(_) => MetricType::Counter,
        Gauge(_) => MetricType::Gauge,
    };
    let mut family = encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
    for (labels, thing) in of {
        let family = family.encode_family(labels)?;
        match metric.value {
            Counter(value) => value(thing).map_or(Ok(()), |value| ConstCounter::new(value).encode(family))?,
            Gauge(value) => value(thing).map_or(Ok(()), |value| ConstGauge::new(value).encode(family))?,
        }
    }
    Ok(())
}

/// Writes one of several words for each of `of`: 1 for the one that fits, 0 for the others.
fn write_words<'a, T>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, label): (&str, &str, &'static str),
    words: &[String],
    of: impl IntoIterator<Item = &'a (Vec<Label>, T)>,
    which: impl Fn(&T) -> String,
) -> fmt::Result
where
    T: 'a,
{
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, thing) in of {
        let fits = which(thing);
        for word in words {
            let mut labels = labels.clone();
            labels.push((label, word.clone()));
            ConstGauge::new(u32::from(*word == fits)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

impl Collector for Buses {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let views: Vec<(Vec<Label>, &View)> =
            self.0.iter().map(|view| (vec![("bus", view.path.clone())], view)).collect();
        let up = Gauge(|view: &View| Some(f64::from(u8::from(view.bus.is_some()))));
        write(encoder, &metric("up", None, up, "Whether the bus can be looked at"), &views)?;

        let buses: Vec<(Vec<Label>, &Look)> = self.seen().map(|(bus, look)| (vec![bus], look)).collect();
        BUS.iter().try_for_each(|metric| write(encoder, metric, &buses))?;
        let states = WRITER_STATES.map(|state| state.to_string());
        let about = ("writer_state", "How the writer stands: 1 for the state that fits", "state");
        write_words(encoder, about, &states, &buses, |look| look.snapshot.writer.state.to_string())?;

        let readers = self.readers();
        let borrowed: Vec<(Vec<Label>, &OfReader)> =
            readers.iter().map(|(labels, reader)| (labels.clone(), reader)).collect();
        READER.iter().try_for_each(|metric| write(encoder, metric, &borrowed))?;
        let words = Health::ALL.map(|health| health.to_string());
        let about = ("reader_health", "How the reader is: 1 for the word that fits", "health");
        write_words(encoder, about, &words, &readers, |(_, health, _)| health.health.to_string())
    }
}
