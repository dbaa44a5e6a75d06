//! The targets: what decides whether lapwing is as fast as it is meant to be.

use crate::peer::Kind;
use crate::results::{Group, Results, Row, Spread};
use crate::table;

/// A figure of lapwing's, in proportion to somebody else's.
struct Target {
    what: &'static str,
    groups: &'static [&'static str],
    figure: &'static str,
    ours: &'static [&'static str],
    than: Than,
    bound: Bound,
}

/// What it is compared with: the best of them in the same group and round.
enum Than {
    /// Rows whose name is this one, or begins with it and a dash.
    Family(&'static str),
    /// Peers between processes that deliver everything.
    EveryPeer,
    /// The same row in another group.
    ItselfIn(&'static str),
    Number(f64),
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};

/// Readers that copy, and deliver everything.
const COPYING: &[&str] = &["lapwing", "lapwing-drain", "lapwing-claim", "lapwing-batch"];
const LOSSLESS: &[&str] =
    &["lapwing", "lapwing-drain", "lapwing-claim", "lapwing-batch", "lapwing-pinned", "lapwing-pinned-batch"];
const PLAIN: &[&str] = &["lapwing"];

const fn target(
    what: &'static str,
    groups: &'static [&'static str],
    figure: &'static str,
    ours: &'static [&'static str],
    than: Than,
    bound: Bound,
) -> Target {
    Target { what, groups, figure, ours, than, bound }
}

const SMALL_STREAMS: &[&str] = &["throughput/8/1", "throughput/32/1", "throughput/48/1"];
const STREAM_64: &[&str] = &["throughput/64/1"];

const TARGETS: &[Target] = &[
    target(
        "in one line: near the bare slot",
        &["latency/8", "latency/32", "latency/48"],
        "p50",
        COPYING,
        Than::Family("limit-slot"),
        AtMost(1.10),
    ),
    target("64 B: ahead of every peer", &["latency/64"], "p50", COPYING, Than::EveryPeer, AtMost(1.0)),
    target("p99 of no peer is better", &["latency/32", "latency/64"], "p99", COPYING, Than::EveryPeer, AtMost(1.0)),
    target("nor p99.9", &["latency/32", "latency/64"], "p99.9", COPYING, Than::EveryPeer, AtMost(1.0)),
    target(
        "small records: near the bare gated stream",
        SMALL_STREAMS,
        "rate",
        COPYING,
        Than::Family("limit-slot-gated"),
        AtLeast(0.85),
    ),
    target("and disruptor-mp", SMALL_STREAMS, "rate", COPYING, Than::Family("disruptor-mp"), AtLeast(1.0)),
    target("64 B: near disruptor-mp", STREAM_64, "rate", COPYING, Than::Family("disruptor-mp"), AtLeast(0.9)),
    target("twice ringfire", STREAM_64, "rate", COPYING, Than::Family("ringfire"), AtLeast(2.0)),
    target("twice Aeron", STREAM_64, "rate", COPYING, Than::Family("aeron"), AtLeast(2.0)),
    target("50 times iceoryx2", STREAM_64, "rate", COPYING, Than::Family("iceoryx2"), AtLeast(50.0)),
    target("1 KiB: ahead of every peer", &["throughput/1024/1"], "rate", LOSSLESS, Than::EveryPeer, AtLeast(1.1)),
    target(
        "large records: what a core can copy",
        &["throughput/16384/1", "throughput/65536/1"],
        "rate",
        COPYING,
        Than::Family("limit-copy"),
        AtLeast(0.9),
    ),
    target(
        "2, 4, 8 readers: ahead of every peer",
        &["throughput/64/2", "throughput/64/4", "throughput/64/8"],
        "rate",
        LOSSLESS,
        Than::EveryPeer,
        AtLeast(1.1),
    ),
    target(
        "a full ring: against one with room",
        &["full/64/1", "full/64/64"],
        "to free",
        PLAIN,
        Than::Number(1.0),
        AtMost(1.5),
    ),
    target(
        "512 readers cost what one does",
        &["registered/64/512"],
        "p50",
        PLAIN,
        Than::ItselfIn("registered/64/1"),
        AtMost(1.25),
    ),
    target("woken like by a bare futex", &["wake/64"], "p50", PLAIN, Than::Family("limit-futex"), AtMost(1.15)),
    target("idle: % of a core", &["idle"], "cpu", PLAIN, Than::Number(1.0), AtMost(0.1)),
    target("attach, of 100 us", &["attach/64K", "attach/4096K"], "p50", PLAIN, Than::Number(100_000.0), AtMost(1.0)),
    target(
        "attach: whatever the ring's size",
        &["attach/4096K"],
        "p50",
        PLAIN,
        Than::ItselfIn("attach/64K"),
        AtMost(1.1),
    ),
    target("a reader's memory, of 64 KiB", &["memory/8"], "reader", PLAIN, Than::Number(65_536.0), AtMost(1.0)),
    target("the writer's", &["memory/8"], "sender", PLAIN, Than::Number(65_536.0), AtMost(1.0)),
];

impl Target {
    fn better(&self, one: f64, other: f64) -> bool {
        match self.bound {
            AtMost(_) => one < other,
            AtLeast(_) => one > other,
        }
    }

    /// Finds the row with the best median.
    fn best<'a>(&self, group: &'a Group, takes_part: impl Fn(&Row) -> bool) -> Option<&'a Row> {
        let rows = group.rows.iter().filter(|row| takes_part(row));
        rows.filter_map(|row| Some((row, row.spread(self.figure)?.median)))
            .reduce(|best, row| if self.better(row.1, best.1) { row } else { best })
            .map(|(row, _)| row)
    }

    /// Works out the ratio and names what was compared; none if it was not measured.
    fn judge(&self, results: &Results, group: &Group) -> Option<(Spread, String)> {
        let ours = self.best(group, |row| self.ours.contains(&row.who.as_str()))?;
        let family = |row: &Row, name: &str| {
            row.who.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let theirs = match self.than {
            Than::Family(name) => self.best(group, |row| row.lossless && family(row, name))?,
            Than::EveryPeer => self.best(group, |row| row.lossless && row.kind == Kind::Peer)?,
            Than::ItselfIn(other) => results.group(other)?.rows.iter().find(|row| row.who == ours.who)?,
            Than::Number(number) => {
                let values = ours.rounds.values().filter_map(|figures| figures.get(self.figure));
                return Some((Spread::of(values.map(|value| value / number))?, ours.who.clone()));
            }
        };
        let theirs_in = if let Than::ItselfIn(other) = self.than { format!(" in {other}") } else { String::new() };
        Some((ours.ratio(self.figure, theirs)?, format!("{} to {}{theirs_in}", ours.who, theirs.who)))
    }
}

/// Lists the targets that this run can judge, by the medians of the ratios within a round.
pub fn render(results: &Results) -> String {
    let mut lines = vec![["target", "measured in", "figure", "of", "found", "wanted", ""].map(String::from).to_vec()];
    for target in TARGETS {
        for group in target.groups.iter().filter_map(|name| results.group(name)) {
            let Some((ratio, of)) = target.judge(results, group) else { continue };
            let (met, wanted) = match target.bound {
                AtMost(bound) => (ratio.median <= bound, format!("at most {bound}")),
                AtLeast(bound) => (ratio.median >= bound, format!("at least {bound}")),
            };
            lines.push(vec![
                target.what.into(),
                group.name.clone(),
                target.figure.into(),
                of,
                table::ratio(Some(ratio)),
                wanted,
                if met { "met".into() } else { "**MISSED**".into() },
            ]);
        }
    }
    if lines.len() == 1 {
        return String::new();
    }
    let mut out = String::from("\n## Targets\n\n");
    table::markdown(&mut out, &lines);
    out
}
