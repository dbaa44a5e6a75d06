//! iceoryx2: samples loaned from shared memory, their offsets in a queue for each subscriber.
//!
//! Its own benchmark of publish-subscribe loans uninitialised samples and polls; a blocking publisher is the one with
//! `RetryUntilDelivered` and without overflow. In streams the reader holds up to 64 samples at a time, which lets it empty the queue in
//! one go (<https://github.com/eclipse-iceoryx/iceoryx2/tree/main/benchmarks/publish-subscribe>).

use super::{Driver, Error, Facts, Receiver, Sender};
use crate::job::{At, Measure};
use iceoryx2::config::Config;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

/// Samples that a reader of a stream holds.
const HELD: usize = 64;
/// Samples in a subscriber's queue at most: more of them gained nothing.
const QUEUE: usize = 1024;

pub struct Iceoryx2<const BLOCKING: bool>;

impl<const BLOCKING: bool> Driver for Iceoryx2<BLOCKING> {
    const FACTS: Facts = Facts {
        name: if BLOCKING { "iceoryx2" } else { "iceoryx2-overflow" },
        lossless: BLOCKING,
        latency_slots: 64,
        max_slots: QUEUE,
        more: if BLOCKING { &[Measure::Rate, Measure::Attach, Measure::Memory] } else { &[] },
        setting: if BLOCKING {
            "no overflow, RetryUntilDelivered; loan_uninit and send; polled, 64 samples held in streams"
        } else {
            "safe overflow (the oldest sample is dropped); loan_uninit and send; polled, 64 samples held in streams"
        },
        advice: "https://github.com/eclipse-iceoryx/iceoryx2/tree/main/benchmarks/publish-subscribe",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Pub<W>;
    type Receiver<const W: usize> = Sub<W>;

    fn sender<const W: usize>(at: &At) -> Result<Pub<W>, Error> {
        let (node, service) = service::<W, BLOCKING>(at)?;
        let publisher = service
            .publisher_builder()
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(|error| format!("{error:?}"))?;
        Ok(Pub { publisher, _service: service, _node: node })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<Sub<W>, Error> {
        let (node, service) = service::<W, BLOCKING>(at)?;
        let subscriber =
            service.subscriber_builder().buffer_size(at.job.slots).create().map_err(|error| format!("{error:?}"))?;
        let hold = if at.is_stream() { HELD } else { 1 };
        Ok(Sub { held: Vec::with_capacity(hold), hold, subscriber, _service: service, _node: node })
    }
}

type Service<const W: usize> = PortFactory<ipc::Service, [u64; W], ()>;

fn service<const W: usize, const BLOCKING: bool>(at: &At) -> Result<(Node<ipc::Service>, Service<W>), Error> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    let root = at.job.dir.to_string_lossy().into_owned();
    config.global.set_root_path(&Path::new(root.as_bytes()).map_err(|error| format!("{error:?}"))?);
    config.global.prefix =
        FileName::new(format!("{}_", at.job.tag).as_bytes()).map_err(|error| format!("{error:?}"))?;
    let node = NodeBuilder::new().config(&config).create::<ipc::Service>().map_err(|error| format!("{error:?}"))?;
    let name: ServiceName = at.name().as_str().try_into().map_err(|error| format!("{error:?}"))?;
    let service = node
        .service_builder(&name)
        .publish_subscribe::<[u64; W]>()
        .enable_safe_overflow(!BLOCKING)
        .max_publishers(1)
        .max_subscribers(at.readers)
        .max_nodes(at.readers + 2)
        .history_size(0)
        .subscriber_max_buffer_size(at.job.slots)
        .subscriber_max_borrowed_samples(HELD)
        .open_or_create()
        .map_err(|error| format!("{error:?}"))?;
    Ok((node, service))
}

pub struct Pub<const W: usize> {
    publisher: Publisher<ipc::Service, [u64; W], ()>,
    _service: Service<W>,
    _node: Node<ipc::Service>,
}

impl<const W: usize> Sender<W> for Pub<W> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        let mut sample = self.publisher.loan_uninit().expect("loan");
        // SAFETY: the sample has room for a record, and holds one afterwards.
        let sample = unsafe {
            std::ptr::copy_nonoverlapping(record, sample.payload_mut().as_mut_ptr(), 1);
            sample.assume_init()
        };
        sample.send().expect("send");
    }

    fn connect(&mut self, _readers: usize) -> Result<(), Error> {
        self.publisher.update_connections().map_err(|error| format!("{error:?}").into())
    }
}

pub struct Sub<const W: usize> {
    // Samples go before what they were borrowed from.
    held: Vec<Sample<ipc::Service, [u64; W], ()>>,
    hold: usize,
    subscriber: Subscriber<ipc::Service, [u64; W], ()>,
    _service: Service<W>,
    _node: Node<ipc::Service>,
}

impl<const W: usize> Receiver<W> for Sub<W> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        if self.hold == 1 {
            return match self.subscriber.receive().expect("receive") {
                Some(sample) => {
                    sink(&sample);
                    1
                }
                None => 0,
            };
        }
        while self.held.len() < self.hold
            && let Some(sample) = self.subscriber.receive().expect("receive")
        {
            self.held.push(sample);
        }
        let count = self.held.len();
        self.held.iter().for_each(|sample| sink(sample));
        self.held.clear();
        count
    }
}
