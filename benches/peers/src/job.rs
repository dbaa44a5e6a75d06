//! One measurement: what is measured, of whom, and where.

use crate::shared::Control;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Half a round trip of ping-pong.
    Latency,
    /// Records delivered while the sender sends as fast as it can.
    Throughput,
    /// One-way latency at a fixed rate, from the intended time of sending.
    Rate,
    /// One-way latency to a reader that sleeps.
    Wake,
    /// Processor time of a reader that sleeps.
    Idle,
    /// Time to attach a reader.
    Attach,
    /// Memory of a bus and of its handles.
    Memory,
    /// Cost of a publish with many registered readers that keep up.
    Registered,
    /// Cost of a publish into a full ring.
    Full,
}

impl Measure {
    pub const ALL: [Self; 9] = [
        Self::Latency,
        Self::Throughput,
        Self::Rate,
        Self::Wake,
        Self::Idle,
        Self::Attach,
        Self::Memory,
        Self::Registered,
        Self::Full,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Rate => "rate",
            Self::Wake => "wake",
            Self::Idle => "idle",
            Self::Attach => "attach",
            Self::Memory => "memory",
            Self::Registered => "registered",
            Self::Full => "full",
        }
    }
}

/// How a reader polls when there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Looks again at once.
    Spin,
    /// Looks again after a PAUSE.
    Pause,
    /// Leaves the memory alone for so many nanoseconds.
    Pace(u32),
    /// Offers the core to others.
    Yield,
}

/// A measurement, as the child processes get it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub measure: Measure,
    pub driver: String,
    /// Payload bytes of a record.
    pub size: usize,
    pub readers: usize,
    /// Records a second, for measures at a fixed rate.
    pub rate: u64,
    /// Slots of the ring, for drivers that count slots; the ring's bytes are `slots * size`.
    pub slots: usize,
    pub idle: Idle,
    pub duration: Duration,
    /// Directory for files, in memory.
    pub dir: PathBuf,
    /// Unique word for names outside the directory.
    pub tag: String,
    pub ticks_per_ns: f64,
    /// More processes than cores: whoever finds nothing yields.
    pub crowded: bool,
    /// The cores to run on: the sender's first.
    pub cores: Vec<usize>,
    /// Tells apart measurements of one driver in a sweep.
    pub variant: String,
}

impl Job {
    pub fn group(&self) -> String {
        let name = self.measure.name();
        match self.measure {
            Measure::Latency => format!("{name}/{}", self.size),
            Measure::Throughput | Measure::Registered | Measure::Full => {
                format!("{name}/{}/{}", self.size, self.readers)
            }
            Measure::Rate => format!("{name}/{}/{}", self.size, self.rate),
            Measure::Wake => format!("{name}/{}", self.size),
            Measure::Attach => format!("{name}/{}K", self.ring_bytes() >> 10),
            Measure::Memory => format!("{name}/{}", self.readers),
            Measure::Idle => name.to_string(),
        }
    }

    /// Returns the driver's name as the table shows it.
    pub fn who(&self) -> String {
        format!("{}{}", self.driver, self.variant)
    }

    pub fn name(&self) -> String {
        format!("{}/{}", self.group(), self.who())
    }

    pub fn ticks(&self, time: Duration) -> u64 {
        (time.as_nanos() as f64 * self.ticks_per_ns) as u64
    }

    pub fn ns(&self, ticks: u64) -> f64 {
        ticks as f64 / self.ticks_per_ns
    }

    /// Bytes of the ring.
    pub fn ring_bytes(&self) -> usize {
        self.slots * self.size
    }
}

/// Which process (or thread) of a measurement this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends, and times ping-pong.
    Writer,
    /// Receives, and answers ping-pong.
    Reader(usize),
}

/// The endpoint a driver is to make.
pub struct At<'a> {
    pub job: &'a Job,
    /// For drivers that wait for their process beside.
    #[cfg_attr(not(feature = "aeron"), expect(dead_code))]
    pub control: &'a Control,
    /// Ping-pong has two channels.
    pub channel: &'static str,
    /// Receivers on this channel.
    pub readers: usize,
}

impl At<'_> {
    /// Returns a path of the channel's own.
    pub fn path(&self) -> PathBuf {
        self.job.dir.join(self.channel)
    }

    /// Returns a name of the channel's own, for what has no path.
    pub fn name(&self) -> String {
        format!("{}{}", self.job.tag, self.channel)
    }

    pub fn is_stream(&self) -> bool {
        self.job.measure == Measure::Throughput
    }
}

/// The figures that a process found.
pub type Figures = BTreeMap<String, f64>;
