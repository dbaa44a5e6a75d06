//! Who is measured: one file each, behind one small interface.

use crate::job::{At, Idle, Job};
use crate::record::Source;
use crate::shared::Control;
use serde::{Deserialize, Serialize};

#[cfg(feature = "aeron")]
pub mod aeron;
#[cfg(feature = "bcast")]
pub mod bcast;
#[cfg(feature = "crossbar")]
pub mod crossbar;
#[cfg(feature = "disruptor-mp")]
pub mod disruptor_mp;
#[cfg(feature = "iceoryx2")]
pub mod iceoryx2;
pub mod kernel;
pub mod lapwing;
pub mod lapwing_c;
#[cfg(feature = "ringfire")]
pub mod ringfire;
#[cfg(any(feature = "disruptor", feature = "crossbeam-channel", feature = "tokio"))]
pub mod threads;

/// Why something did not work, in words.
pub type Error = Box<dyn std::error::Error>;

/// What somebody is, in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Limit,
    Lapwing,
    Peer,
    /// A peer that works between the threads of one process only.
    InProcess,
}

/// What the table says about a driver, and how it likes to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub name: &'static str,
    pub kind: Kind,
    /// Every reader gets every record.
    pub lossless: bool,
    /// Largest payload.
    pub max_size: usize,
    /// Most readers.
    pub max_readers: usize,
    /// Depth of the ring in ping-pong.
    pub latency_slots: usize,
    /// Bytes of the ring that ping-pong takes at least.
    pub latency_bytes: usize,
    /// Size of the ring in a stream.
    pub stream_bytes: usize,
    /// Most slots it likes in a stream.
    pub max_slots: usize,
    /// How the reader of a stream polls when there is nothing.
    pub stream_idle: Idle,
    /// Measures it takes part in beyond latency and throughput.
    pub more: &'static [crate::job::Measure],
    /// Measures it does not take part in.
    pub not: &'static [crate::job::Measure],
    /// How it is set up, and on whose advice.
    pub setting: &'static str,
    pub advice: &'static str,
    /// Wants a process of its own beside.
    pub helper: bool,
}

impl Facts {
    pub const DEFAULT: Self = Self {
        name: "",
        kind: Kind::Peer,
        lossless: true,
        max_size: 64 << 10,
        max_readers: 64,
        latency_slots: 1024,
        latency_bytes: 0,
        stream_bytes: 1 << 20,
        max_slots: 16_384,
        stream_idle: Idle::Spin,
        more: &[],
        not: &[],
        setting: "",
        advice: "",
        helper: false,
    };
}

/// Sends records of `W` words.
pub trait Sender<const W: usize> {
    /// Sends one record; waits where there is no room.
    fn send(&mut self, record: &[u64; W]);

    /// Sends the next `count` records of `source`.
    #[inline(always)]
    fn send_many(&mut self, source: &mut Source<W>, count: usize) {
        for _ in 0..count {
            self.send(source.next());
        }
    }

    /// Sends one record if there is room.
    fn try_send(&mut self, record: &[u64; W]) -> bool {
        self.send(record);
        true
    }

    /// Makes sure that the receivers, all attached by now, will get every record.
    fn connect(&mut self, _readers: usize) -> Result<(), Error> {
        Ok(())
    }
}

/// Receives records of `W` words.
pub trait Receiver<const W: usize> {
    /// Hands records that are there to `sink`, one or many, as is fastest; returns how many.
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize;

    /// Sleeps until there is one, and hands it to `sink`; may come back empty-handed after a while.
    fn receive_parked(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        self.receive(sink)
    }
}

/// Makes senders and receivers.
pub trait Driver {
    const FACTS: Facts;
    type Sender<const W: usize>: Sender<W>;
    type Receiver<const W: usize>: Receiver<W>;

    fn sender<const W: usize>(at: &At) -> Result<Self::Sender<W>, Error>;
    fn receiver<const W: usize>(at: &At, index: usize) -> Result<Self::Receiver<W>, Error>;

    /// The process beside, if it wants one; ends when the measurement does.
    fn helper(_job: &Job, _control: &Control) -> Result<(), Error> {
        Ok(())
    }
}
