//! What was found: every figure of every round, its median and spread, and ratios within a round.

use crate::drivers::{self, Entry};
use crate::job::{Figures, Job};
use crate::machine::Description;
use crate::peer::Kind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// One driver in one group, round by round.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub who: String,
    pub kind: Kind,
    pub lossless: bool,
    pub job: Job,
    pub rounds: BTreeMap<usize, Figures>,
    pub failures: Vec<String>,
    pub disturbed: usize,
    /// Medians, spreads and ratios, worked out for readers of the file.
    #[serde(default)]
    derived: BTreeMap<String, Derived>,
}

/// A figure over all rounds, and its ratio to that of each other row within the same round.
#[derive(Clone, Serialize, Deserialize)]
struct Derived {
    spread: Spread,
    ratio_to: BTreeMap<String, Spread>,
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

    fn names(&self) -> BTreeSet<&String> {
        self.rounds.values().flat_map(Figures::keys).collect()
    }
}

#[derive(Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    pub rows: Vec<Row>,
}

impl Group {
    fn derive(&mut self) {
        let derived: Vec<BTreeMap<String, Derived>> = self
            .rows
            .iter()
            .map(|row| {
                let of = |name: &String| {
                    let ratio = |other: &Row| Some((other.who.clone(), row.ratio(name, other)?));
                    let ratio_to = self.rows.iter().filter_map(ratio).collect();
                    Some((name.clone(), Derived { spread: row.spread(name)?, ratio_to }))
                };
                row.names().into_iter().filter_map(of).collect()
            })
            .collect();
        self.rows.iter_mut().zip(derived).for_each(|(row, derived)| row.derived = derived);
    }
}

/// How somebody was set up, and on whose advice.
#[derive(Serialize, Deserialize)]
pub struct Setting {
    pub who: String,
    pub lossless: bool,
    pub setting: String,
    pub advice: String,
}

#[derive(Serialize, Deserialize)]
pub struct Results {
    pub machine: Description,
    /// Peers that do not build here.
    pub missing: Vec<String>,
    pub settings: Vec<Setting>,
    pub groups: Vec<Group>,
}

impl Results {
    pub fn new(machine: Description) -> Self {
        let setting = |entry: &Entry| Setting {
            who: entry.facts.name.into(),
            lossless: entry.facts.lossless,
            setting: entry.facts.setting.into(),
            advice: entry.facts.advice.into(),
        };
        let missing = std::env::var("PEERS_MISSING").unwrap_or_default();
        Self {
            machine,
            missing: missing.split_whitespace().map(String::from).collect(),
            settings: drivers::ALL.iter().map(setting).collect(),
            groups: Vec::new(),
        }
    }

    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(serde_json::from_reader(BufReader::new(File::open(path)?))?)
    }

    pub fn write(&mut self, path: &Path) -> Result<(), Box<dyn Error>> {
        self.groups.iter_mut().for_each(Group::derive);
        Ok(std::fs::write(path, serde_json::to_string_pretty(self)?)?)
    }

    pub fn add(&mut self, round: usize, group: &str, job: &Job, outcome: Outcome) {
        let at = self.groups.iter().position(|known| known.name == group).unwrap_or_else(|| {
            self.groups.push(Group { name: group.to_string(), rows: Vec::new() });
            self.groups.len() - 1
        });
        let rows = &mut self.groups[at].rows;
        let at = rows.iter().position(|row| row.who == job.who()).unwrap_or_else(|| {
            let facts = &drivers::find(&job.driver).expect("planned from the list").facts;
            rows.push(Row {
                who: job.who(),
                kind: facts.kind,
                lossless: facts.lossless,
                job: job.clone(),
                rounds: BTreeMap::new(),
                failures: Vec::new(),
                disturbed: 0,
                derived: BTreeMap::new(),
            });
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

    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Counts a driver's failures in a group.
    pub fn failures(&self, group: &str, who: &str) -> usize {
        let row = self.group(group).and_then(|group| group.rows.iter().find(|row| row.who == who));
        row.map_or(0, |row| row.failures.len())
    }
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
