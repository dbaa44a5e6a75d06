//! ringfire: fixed-size slots with their own sequence, in a file.
//!
//! Its guide to benchmarking measures `push` against `recv_batch` for streams and `try_recv` with a busy spin for round trips
//! (<https://github.com/alex09x/ringfire/blob/main/docs/benchmarking.md>).

use super::{Driver, Error, Facts, Receiver, Sender};
use crate::job::{At, Idle, Measure};
use ringfire::{FlowControl, FutexWait, RecvStatus, RingConsumer, RingProducer, RingProducerBuilder, WaitStrategy};

/// Records taken by one `recv_batch`.
const BATCH: usize = 64;

pub struct Ringfire<const LOSSLESS: bool>;

impl<const LOSSLESS: bool> Driver for Ringfire<LOSSLESS> {
    const FACTS: Facts = Facts {
        name: if LOSSLESS { "ringfire" } else { "ringfire-lossy" },
        lossless: LOSSLESS,
        max_size: 16 << 10,
        max_readers: 512,
        stream_idle: Idle::Pace(1000),
        more: if LOSSLESS {
            &[
                Measure::Rate,
                Measure::Wake,
                Measure::Idle,
                Measure::Attach,
                Measure::Memory,
                Measure::Registered,
                Measure::Full,
            ]
        } else {
            &[]
        },
        setting: if LOSSLESS {
            "lossless back-pressure; push, recv_batch of 64 in streams, try_recv in ping-pong"
        } else {
            "lossy, latest wins; push, recv_batch of 64 in streams, try_recv in ping-pong"
        },
        advice: "https://github.com/alex09x/ringfire/blob/main/docs/benchmarking.md",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Producer<W>;
    type Receiver<const W: usize> = Consumer<W>;

    fn sender<const W: usize>(at: &At) -> Result<Producer<W>, Error> {
        let flow = if LOSSLESS { FlowControl::LosslessBackpressure } else { FlowControl::LossyLatestWins };
        let mut builder = RingProducerBuilder::new(at.job.slots as u64).flow_control(flow);
        if at.job.readers > 32 {
            builder = builder.max_readers(at.job.readers);
        }
        Ok(Producer { producer: builder.build(at.path())? })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<Consumer<W>, Error> {
        let consumer = RingConsumer::builder().start_from_head().attach(at.path())?;
        let batch = if at.is_stream() { BATCH } else { 0 };
        Ok(Consumer { consumer, batch: vec![[0; W]; batch].into_boxed_slice(), wait: FutexWait::default() })
    }
}

pub struct Producer<const W: usize> {
    producer: RingProducer<[u64; W]>,
}

impl<const W: usize> Sender<W> for Producer<W> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        self.producer.push(record);
    }

    fn try_send(&mut self, record: &[u64; W]) -> bool {
        self.producer.try_push(record).is_ok()
    }
}

pub struct Consumer<const W: usize> {
    consumer: RingConsumer<[u64; W]>,
    batch: Box<[[u64; W]]>,
    wait: FutexWait,
}

impl<const W: usize> Receiver<W> for Consumer<W> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        if self.batch.is_empty() {
            return match self.consumer.recv_status() {
                RecvStatus::Ok(record) | RecvStatus::Lapped { item: record, .. } => {
                    sink(&record);
                    1
                }
                RecvStatus::Empty => 0,
            };
        }
        let count = self.consumer.recv_batch(&mut self.batch);
        self.batch[..count].iter().for_each(|record| sink(record));
        count
    }

    fn receive_parked(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        sink(&self.consumer.recv_blocking(&mut self.wait));
        self.wait.reset();
        1
    }
}
