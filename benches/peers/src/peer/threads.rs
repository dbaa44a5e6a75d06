//! Peers that work between the threads of one process only, for scale: disruptor 4, crossbeam-channel, tokio's broadcast channel.
//!
//! disruptor's README polls in batches (<https://docs.rs/disruptor/4.4.0/disruptor/struct.EventPoller.html>); crossbeam-channel has no
//! broadcast, so each reader gets a bounded channel of its own; tokio's drops the oldest records
//! (<https://docs.rs/tokio/1/tokio/sync/broadcast/index.html>).

use super::{Driver, Error, Facts, Kind, Receiver, Sender};
use crate::job::{At, Idle, Measure};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Receiving ends that wait for their thread.
static ENDS: Mutex<Option<HashMap<String, Box<dyn Any + Send>>>> = Mutex::new(None);

fn leave<T: Send + 'static>(at: &At, index: usize, end: T) {
    let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
    ends.get_or_insert_default().insert(format!("{}-{index}", at.channel), Box::new(end));
}

fn fetch<T: Send + 'static>(at: &At, index: usize) -> Result<T, Error> {
    let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
    let end = ends.get_or_insert_default().remove(&format!("{}-{index}", at.channel));
    let end = end.and_then(|end| end.downcast::<T>().ok());
    end.map(|end| *end).ok_or_else(|| "no such end".into())
}

/// Records by value: larger ones stall the compiler.
const MAX_SIZE: usize = 1 << 10;

const IN_PROCESS: Facts =
    Facts { kind: Kind::InProcess, max_size: MAX_SIZE, max_readers: 8, more: &[Measure::Rate], ..Facts::DEFAULT };

#[cfg(feature = "disruptor")]
pub use ring::Disruptor;

#[cfg(feature = "disruptor")]
mod ring {
    use super::*;
    use ::disruptor::{
        BusySpin, EventPoller, MultiConsumerBarrier, Polling, Producer, SingleConsumerBarrier, SingleProducer,
        SingleProducerBarrier, build_single_producer,
    };

    pub struct Disruptor;

    /// An event in whole cache lines.
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    pub struct Slot<const W: usize>([u64; W]);

    impl Driver for Disruptor {
        const FACTS: Facts = Facts {
            name: "disruptor",
            stream_bytes: 4 << 20,
            max_slots: 65_536,
            stream_idle: Idle::Pace(1000),
            setting: "single producer, publish; event pollers, all that is there at once",
            advice: "https://docs.rs/disruptor/4.4.0/disruptor/struct.EventPoller.html",
            ..IN_PROCESS
        };
        type Sender<const W: usize> = End<W>;
        type Receiver<const W: usize> = Poller<W>;

        fn sender<const W: usize>(at: &At) -> Result<End<W>, Error> {
            let builder = build_single_producer(at.job.slots, || Slot([0; W]), BusySpin);
            let (poller, builder) = builder.new_event_poller();
            leave(at, 0, poller);
            if at.readers == 1 {
                return Ok(End::One(builder.build()));
            }
            let (poller, mut builder) = builder.new_event_poller();
            leave(at, 1, poller);
            for index in 2..at.readers {
                let (poller, next) = builder.new_event_poller();
                leave(at, index, poller);
                builder = next;
            }
            Ok(End::Many(builder.build()))
        }

        fn receiver<const W: usize>(at: &At, index: usize) -> Result<Poller<W>, Error> {
            Ok(Poller { poller: fetch(at, index)? })
        }
    }

    pub enum End<const W: usize> {
        One(SingleProducer<Slot<W>, SingleConsumerBarrier>),
        Many(SingleProducer<Slot<W>, MultiConsumerBarrier>),
    }

    impl<const W: usize> Sender<W> for End<W> {
        #[inline(always)]
        fn send(&mut self, record: &[u64; W]) {
            match self {
                Self::One(producer) => producer.publish(|slot| slot.0 = *record),
                Self::Many(producer) => producer.publish(|slot| slot.0 = *record),
            }
        }
    }

    pub struct Poller<const W: usize> {
        poller: EventPoller<Slot<W>, SingleProducerBarrier>,
    }

    impl<const W: usize> Receiver<W> for Poller<W> {
        #[inline(always)]
        fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
            match self.poller.poll() {
                Ok(mut events) => {
                    let mut count = 0;
                    for event in &mut events {
                        sink(&event.0);
                        count += 1;
                    }
                    count
                }
                Err(Polling::NoEvents | Polling::Shutdown) => 0,
            }
        }
    }
}

#[cfg(feature = "crossbeam-channel")]
pub use channel::Crossbeam;

#[cfg(feature = "crossbeam-channel")]
mod channel {
    use super::*;
    use ::crossbeam_channel as crossbeam;

    pub struct Crossbeam;

    impl Driver for Crossbeam {
        const FACTS: Facts = Facts {
            name: "crossbeam-channel",
            // Left alone while it is empty, it moves half as much again.
            stream_idle: Idle::Pace(1000),
            setting: "a bounded channel for each reader; send, try_recv",
            advice: "https://docs.rs/crossbeam-channel/0.5/crossbeam_channel/",
            ..IN_PROCESS
        };
        type Sender<const W: usize> = Senders<W>;
        type Receiver<const W: usize> = Channel<W>;

        fn sender<const W: usize>(at: &At) -> Result<Senders<W>, Error> {
            let mut all = Vec::new();
            for index in 0..at.readers {
                let (sender, receiver) = crossbeam::bounded::<[u64; W]>(at.job.slots);
                leave(at, index, receiver);
                all.push(sender);
            }
            Ok(Senders { all })
        }

        fn receiver<const W: usize>(at: &At, index: usize) -> Result<Channel<W>, Error> {
            Ok(Channel { receiver: fetch(at, index)? })
        }
    }

    pub struct Senders<const W: usize> {
        all: Vec<crossbeam::Sender<[u64; W]>>,
    }

    impl<const W: usize> Sender<W> for Senders<W> {
        #[inline(always)]
        fn send(&mut self, record: &[u64; W]) {
            for sender in &self.all {
                // A failure means that the reader is gone, which its own side reports.
                let _ = sender.send(*record);
            }
        }
    }

    pub struct Channel<const W: usize> {
        receiver: crossbeam::Receiver<[u64; W]>,
    }

    impl<const W: usize> Receiver<W> for Channel<W> {
        #[inline(always)]
        fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
            match self.receiver.try_recv() {
                Ok(record) => {
                    sink(&record);
                    1
                }
                Err(_) => 0,
            }
        }
    }
}

#[cfg(feature = "tokio")]
pub use broadcast::Tokio;

#[cfg(feature = "tokio")]
mod broadcast {
    use super::*;
    use ::tokio::sync::broadcast;

    pub struct Tokio;

    impl Driver for Tokio {
        const FACTS: Facts = Facts {
            name: "tokio-broadcast",
            lossless: false,
            setting: "send, try_recv; the oldest records are dropped",
            advice: "https://docs.rs/tokio/1/tokio/sync/broadcast/index.html",
            ..IN_PROCESS
        };
        type Sender<const W: usize> = End<W>;
        type Receiver<const W: usize> = Subscription<W>;

        fn sender<const W: usize>(at: &At) -> Result<End<W>, Error> {
            let (sender, first) = broadcast::channel::<[u64; W]>(at.job.slots);
            leave(at, 0, first);
            for index in 1..at.readers {
                leave(at, index, sender.subscribe());
            }
            Ok(End { sender })
        }

        fn receiver<const W: usize>(at: &At, index: usize) -> Result<Subscription<W>, Error> {
            Ok(Subscription { receiver: fetch(at, index)? })
        }
    }

    pub struct End<const W: usize> {
        sender: broadcast::Sender<[u64; W]>,
    }

    impl<const W: usize> Sender<W> for End<W> {
        #[inline(always)]
        fn send(&mut self, record: &[u64; W]) {
            // A failure means that the readers are gone, which their own side reports.
            let _ = self.sender.send(*record);
        }
    }

    pub struct Subscription<const W: usize> {
        receiver: broadcast::Receiver<[u64; W]>,
    }

    impl<const W: usize> Receiver<W> for Subscription<W> {
        #[inline(always)]
        fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
            match self.receiver.try_recv() {
                Ok(record) => {
                    sink(&record);
                    1
                }
                Err(_) => 0,
            }
        }
    }
}
