//! What was found: every figure of every round, its median and spread, and ratios within a round.

use crate::drivers;
use crate::job::{Figures, Job};
use crate::machine::Description;
use crate::peer::Kind;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How one measurement ended.
pub struct Outcome {
    pub figures: Result<Figures, String>,
    /// Somebody else used the cores meanwhile.
    pub disturbed: bool,
}

impl Default for Outcome {
    fn default() -> Self {
        Self { figures: Err("not run".into()), disturbed: false }
    }
}

/// Median and spread over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            (values.get(middle.checked_sub(1)?)? + values[middle]) / 2.0
        } else {
            values[middle]
        };
        Some(Self { median, min: values[0], max: *values.last()? })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// One driver in one group, round by round.
pub struct Row {
    pub job: Job,
    pub kind: Kind,
    pub rounds: BTreeMap<usize, Figures>,
    pub failures: Vec<String>,
    pub disturbed: usize,
}

impl Row {
    /// Returns a figure's median and spread.
    pub fn spread(&self, figure: &str) -> Option<Spread> {
        Spread::of(self.rounds.values().filter_map(|figures| figures.get(figure).copied()))
    }

    /// Returns this row's figure divided by another's in the same round.
    pub fn ratio(&self, figure: &str, to: &Row) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|(round, figures)| {
            let other = to.rounds.get(round)?.get(figure)?;
            Some(figures.get(figure)? / other)
        }))
    }

    pub fn lossless(&self) -> bool {
        drivers::find(&self.job.driver).is_some_and(|entry| entry.facts.lossless)
    }
}

pub struct Group {
    pub name: String,
    pub rows: Vec<Row>,
}

pub struct Results {
    pub machine: Description,
    pub groups: Vec<Group>,
}

impl Results {
    pub fn new(machine: Description) -> Self {
        Self { machine, groups: Vec::new() }
    }

    pub fn add(&mut self, round: usize, group: &str, job: &Job, outcome: Outcome) {
        let at = self.groups.iter().position(|known| known.name == group).unwrap_or_else(|| {
            self.groups.push(Group { name: group.to_string(), rows: Vec::new() });
            self.groups.len() - 1
        });
        let rows = &mut self.groups[at].rows;
        let at = rows.iter().position(|row| row.job.who() == job.who()).unwrap_or_else(|| {
            let kind = drivers::find(&job.driver).map_or(Kind::Peer, |entry| entry.facts.kind);
            rows.push(Row { job: job.clone(), kind, rounds: BTreeMap::new(), failures: Vec::new(), disturbed: 0 });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.disturbed += usize::from(outcome.disturbed);
        match outcome.figures {
            Ok(figures) => {
                row.rounds.insert(round, figures);
            }
            Err(error) => row.failures.push(error),
        }
    }

    /// Counts a driver's failures in a group.
    pub fn failures(&self, group: &str, who: &str) -> usize {
        let group = self.groups.iter().find(|known| known.name == group);
        group.and_then(|group| group.rows.iter().find(|row| row.job.who() == who)).map_or(0, |row| row.failures.len())
    }

    pub fn to_json(&self) -> String {
        let groups: Vec<Value> = self.groups.iter().map(group_json).collect();
        let machine: BTreeMap<&String, &String> =
            self.machine.facts.iter().map(|(name, value)| (name, value)).collect();
        let settings: BTreeMap<&str, Value> = drivers::ALL
            .iter()
            .map(|entry| (entry.facts.name, json!({ "setting": entry.facts.setting, "advice": entry.facts.advice })))
            .collect();
        let all = json!({ "machine": machine, "settings": settings, "measurements": groups });
        serde_json::to_string_pretty(&all).expect("serialises")
    }
}

fn group_json(group: &Group) -> Value {
    let rows: Vec<Value> = group
        .rows
        .iter()
        .map(|row| {
            let names: std::collections::BTreeSet<&String> = row.rounds.values().flat_map(Figures::keys).collect();
            let figures: BTreeMap<&String, Value> = names
                .into_iter()
                .filter_map(|name| {
                    let rounds: Vec<Option<f64>> =
                        row.rounds.values().map(|figures| figures.get(name).copied()).collect();
                    let ratios: BTreeMap<String, Value> = group
                        .rows
                        .iter()
                        .filter_map(|other| Some((other.job.who(), row.ratio(name, other)?.json())))
                        .collect();
                    let spread = row.spread(name)?.json();
                    Some((name, json!({ "spread": spread, "rounds": rounds, "ratio_to": ratios })))
                })
                .collect();
            json!({
                "who": row.job.who(),
                "kind": format!("{:?}", row.kind),
                "lossless": row.lossless(),
                "slots": row.job.slots,
                "idle": format!("{:?}", row.job.idle),
                "failures": row.failures,
                "disturbed": row.disturbed,
                "figures": figures,
            })
        })
        .collect();
    json!({ "name": group.name, "rows": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
