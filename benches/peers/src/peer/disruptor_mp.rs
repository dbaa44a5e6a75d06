//! disruptor-mp: fixed-size slots and sequence cursors in POSIX shared memory.
//!
//! Its README names the leased read for the fast path, and `process_available` as the batched one; consumers are made known to the producer
//! by name before the first publish, so that discovery costs nothing while it runs
//! (<https://docs.rs/disruptor-mp/0.1.0-alpha.2/disruptor_mp/>).

use super::{Driver, Error, Facts, Receiver, Sender};
use crate::job::{At, Idle, Measure};
use crate::record::Source;
use disruptor_mp::{
    CoordinationMode, SharedConsumer, SharedProducer, attach_shared_consumer, build_shared_single_producer,
};
use std::marker::PhantomData;
use std::time::Duration;

/// Records in a batch.
const BATCH: usize = 32;

/// Events in whole cache lines are the faster ones; those that are not a multiple of a line may do better packed.
pub struct DisruptorMp<L, const BATCHES: bool>(PhantomData<L>);

/// How events lie in the ring.
pub trait Layout: 'static {
    const PACKED: bool;
    type Slot<const W: usize>: Event<W>;
}

pub struct InLines;

impl Layout for InLines {
    const PACKED: bool = false;
    type Slot<const W: usize> = Lines<W>;
}

pub struct Close;

impl Layout for Close {
    const PACKED: bool = true;
    type Slot<const W: usize> = Packed<W>;
}

/// An event.
pub trait Event<const W: usize>: Copy + Default + 'static {
    fn words(&mut self) -> &mut [u64; W];
    fn seen(&self) -> &[u64; W];
}

macro_rules! event {
    ($name:ident, $repr:meta) => {
        #[derive(Clone, Copy)]
        #[$repr]
        pub struct $name<const W: usize>([u64; W]);

        impl<const W: usize> Default for $name<W> {
            fn default() -> Self {
                Self([0; W])
            }
        }

        impl<const W: usize> Event<W> for $name<W> {
            #[inline(always)]
            fn words(&mut self) -> &mut [u64; W] {
                &mut self.0
            }

            #[inline(always)]
            fn seen(&self) -> &[u64; W] {
                &self.0
            }
        }
    };
}

event!(Packed, repr(C));
event!(Lines, repr(C, align(64)));

impl<L: Layout, const BATCHES: bool> Driver for DisruptorMp<L, BATCHES> {
    const FACTS: Facts = Facts {
        name: match (BATCHES, L::PACKED) {
            (true, _) => "disruptor-mp-batch",
            (_, true) => "disruptor-mp-packed",
            (_, false) => "disruptor-mp",
        },
        max_readers: 512,
        stream_bytes: 4 << 20,
        max_slots: 65_536,
        // Its reader polls the cursor: left alone while it is empty, the producer gets ahead.
        stream_idle: Idle::Pace(1000),
        more: if BATCHES || L::PACKED {
            &[]
        } else {
            &[Measure::Rate, Measure::Attach, Measure::Memory, Measure::Registered, Measure::Full]
        },
        not: if BATCHES { &[Measure::Latency] } else { &[] },
        setting: if BATCHES {
            "try_batch_publish of 32, process_available; events in whole lines"
        } else if L::PACKED {
            "as disruptor-mp, events packed"
        } else {
            "publish; process_available in streams, leased reads in ping-pong; events in whole lines; consumers known beforehand, no discovery"
        },
        advice: "https://docs.rs/disruptor-mp/0.1.0-alpha.2/disruptor_mp/",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Producer<L::Slot<W>, BATCHES>;
    type Receiver<const W: usize> = Consumer<L::Slot<W>>;

    fn sender<const W: usize>(at: &At) -> Result<Producer<L::Slot<W>, BATCHES>, Error> {
        let producer = build_shared_single_producer::<L::Slot<W>>(&at.name(), at.job.slots)
            .disable_discovery()
            .with_coordination(CoordinationMode::Immediate)
            .build_producer(Default::default)
            .map_err(|error| error.to_string())?;
        Ok(Producer { producer })
    }

    fn receiver<const W: usize>(at: &At, index: usize) -> Result<Consumer<L::Slot<W>>, Error> {
        let consumer = attach_shared_consumer::<L::Slot<W>>(&at.name(), at.job.slots)
            .with_consumer_id(&format!("c{index}"))
            .build_consumer()
            .map_err(|error| error.to_string())?;
        Ok(Consumer { consumer, stream: at.is_stream() })
    }
}

pub struct Producer<E, const BATCHES: bool> {
    producer: SharedProducer<E>,
}

impl<const W: usize, E: Event<W>, const BATCHES: bool> Sender<W> for Producer<E, BATCHES> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        self.producer.publish(|slot| *slot.words() = *record);
    }

    #[inline(always)]
    fn send_many(&mut self, source: &mut Source<W>, count: usize) {
        if !BATCHES {
            for _ in 0..count {
                self.send(source.next());
            }
            return;
        }
        let mut left = count;
        while left > 0 {
            let size = left.min(BATCH);
            // The closure is shared, so the source goes through a cell; it runs only once there is room for the whole batch.
            let cell = std::cell::RefCell::new(&mut *source);
            while self.producer.try_batch_publish(size, |slot, _| *slot.words() = *cell.borrow_mut().next()).is_err() {
                std::hint::spin_loop();
            }
            left -= size;
        }
    }

    fn try_send(&mut self, record: &[u64; W]) -> bool {
        self.producer.try_publish(|slot| *slot.words() = *record).is_ok()
    }

    fn connect(&mut self, readers: usize) -> Result<(), Error> {
        for reader in 0..readers {
            if !self.producer.wait_for_consumer_id(&format!("c{reader}"), Duration::from_secs(5)) {
                return Err(format!("consumer {reader} was not found").into());
            }
        }
        Ok(())
    }
}

pub struct Consumer<E> {
    consumer: SharedConsumer<E>,
    stream: bool,
}

impl<const W: usize, E: Event<W>> Receiver<W> for Consumer<E> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        if self.stream {
            self.consumer.process_available(|slot, _| sink(slot.seen()))
        } else if let Some(lease) = self.consumer.try_consume_next_leased() {
            sink(lease.seen());
            1
        } else {
            0
        }
    }
}
