//! bcast: variable-sized records in a memory-mapped ring; the writer never waits, a reader that is overrun starts again at the tip.
//!
//! Its own throughput benchmark publishes into claimed storage and reads in batches
//! (<https://docs.rs/bcast/1.0.0-rc.7/bcast/>, section Benchmarking).

use super::{Driver, Error, Facts, Receiver, Sender};
use crate::job::{At, Idle, Measure};
use crate::record;
use bcast::{HEADER_SIZE, MappedReader, MappedWriter, MmapMutStorage, MmapStorage, StorageExt};

pub struct Bcast;

impl Driver for Bcast {
    const FACTS: Facts = Facts {
        name: "bcast",
        lossless: false,
        stream_idle: Idle::Spin,
        more: &[Measure::Rate, Measure::Attach, Measure::Memory],
        setting: "publish into the ring; read_batch in streams, receive_next in ping-pong; memory locked, as it always is",
        advice: "https://docs.rs/bcast/1.0.0-rc.7/bcast/#benchmarking",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Writer;
    type Receiver<const W: usize> = Reader<W>;

    fn sender<const W: usize>(at: &At) -> Result<Writer, Error> {
        let capacity = at.job.ring_bytes().max(8 * at.job.size).max(4096).next_power_of_two();
        Ok(Writer { writer: MmapMutStorage::new(at.path(), HEADER_SIZE + capacity)?.into_writer() })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<Reader<W>, Error> {
        let reader = MmapStorage::attach(at.path())?.into_reader_at(0);
        Ok(Reader { reader, batches: at.is_stream(), payload: vec![0; W].into_boxed_slice() })
    }
}

pub struct Writer {
    writer: MappedWriter,
}

impl<const W: usize> Sender<W> for Writer {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        self.writer.publish(W * 8, true, |payload| payload.copy_from_slice(record::bytes(record)));
    }
}

pub struct Reader<const W: usize> {
    reader: MappedReader,
    batches: bool,
    payload: Box<[u64]>,
}

impl<const W: usize> Receiver<W> for Reader<W> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        // SAFETY: words as bytes; the slice covers exactly the record.
        let payload = unsafe { std::slice::from_raw_parts_mut(self.payload.as_mut_ptr().cast::<u8>(), W * 8) };
        if !self.batches {
            return match self.reader.receive_next(payload) {
                Some(Ok(message)) => {
                    record::from_bytes(message.payload, sink);
                    1
                }
                Some(Err(_)) => {
                    self.reader.reset();
                    0
                }
                None => 0,
            };
        }
        let Some(mut batch) = self.reader.read_batch() else { return 0 };
        let mut count = 0;
        while let Some(message) = batch.receive_next(payload) {
            match message {
                Ok(message) => record::from_bytes(message.payload, sink),
                Err(_) => {
                    batch.reset();
                    break;
                }
            }
            count += 1;
        }
        count
    }
}
