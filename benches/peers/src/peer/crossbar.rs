//! crossbar: its broadcast bus of plain values with bounded back-pressure, the one of its ways that loses nothing
//! (<https://docs.rs/crossbar/1.1.0/crossbar/struct.PodBus.html>).

use super::{Driver, Error, Facts, Receiver, Sender};
use crate::job::{At, Idle, Measure};
use crossbar::{BusSubscriber, PodBus};

pub struct Crossbar;

impl Driver for Crossbar {
    const FACTS: Facts = Facts {
        name: "crossbar",
        max_size: 1 << 10,
        max_readers: 8,
        stream_idle: Idle::Spin,
        more: &[Measure::Rate, Measure::Attach, Measure::Memory, Measure::Full],
        setting: "PodBus, bounded, watermark 1; publish, try_recv",
        advice: "https://docs.rs/crossbar/1.1.0/crossbar/struct.PodBus.html",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Bus<W>;
    type Receiver<const W: usize> = Subscriber<W>;

    fn sender<const W: usize>(at: &At) -> Result<Bus<W>, Error> {
        Ok(Bus { bus: PodBus::create_bounded(&at.name(), at.job.slots, 1)? })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<Subscriber<W>, Error> {
        Ok(Subscriber { subscriber: BusSubscriber::connect(&at.name())?, stream: at.is_stream() })
    }
}

pub struct Bus<const W: usize> {
    bus: PodBus<[u64; W]>,
}

impl<const W: usize> Sender<W> for Bus<W> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        while self.bus.try_publish(*record).is_err() {
            std::hint::spin_loop();
        }
    }

    fn try_send(&mut self, record: &[u64; W]) -> bool {
        self.bus.try_publish(*record).is_ok()
    }
}

pub struct Subscriber<const W: usize> {
    subscriber: BusSubscriber<[u64; W]>,
    stream: bool,
}

impl<const W: usize> Receiver<W> for Subscriber<W> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let mut count = 0;
        while let Some(record) = self.subscriber.try_recv() {
            sink(&record);
            count += 1;
            if !self.stream {
                break;
            }
        }
        count
    }
}
