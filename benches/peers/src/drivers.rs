//! The list of drivers, and the way from a name and a size to the code for both.

use crate::job::{Figures, Job, Role};
use crate::limit;
use crate::measure;
#[cfg(feature = "disruptor-mp")]
use crate::peer::disruptor_mp::{Close, DisruptorMp, InLines};
use crate::peer::{self, Driver, Error, Facts, lapwing};
use crate::shared::Control;

/// What can be done with a driver without knowing its type.
pub struct Entry {
    pub facts: Facts,
    pub run: fn(&Job, &Control, Role) -> Result<Figures, Error>,
    pub helper: fn(&Job, &Control) -> Result<(), Error>,
}

/// A driver that passes records by value: at 64 KiB that stalls the compiler.
const fn small<D: Driver>() -> Entry {
    Entry { facts: D::FACTS, run: sized::<D>, helper: D::helper }
}

/// A driver whose records go through the stack several times.
const fn tiny<D: Driver>() -> Entry {
    Entry { facts: D::FACTS, run: up_to_1k::<D>, helper: D::helper }
}

const fn entry<D: Driver>() -> Entry {
    Entry { facts: D::FACTS, run: any_size::<D>, helper: D::helper }
}

/// Sizes of payloads, in bytes, that the drivers are compiled for.
pub const SIZES: [usize; 8] = [8, 32, 48, 64, 256, 1 << 10, 16 << 10, 64 << 10];

fn up_to_1k<D: Driver>(job: &Job, control: &Control, role: Role) -> Result<Figures, Error> {
    match job.size {
        8 => measure::run::<D, 1>(job, control, role),
        32 => measure::run::<D, 4>(job, control, role),
        48 => measure::run::<D, 6>(job, control, role),
        64 => measure::run::<D, 8>(job, control, role),
        256 => measure::run::<D, 32>(job, control, role),
        1024 => measure::run::<D, 128>(job, control, role),
        other => Err(format!("no code for {other} bytes; there is for {SIZES:?}").into()),
    }
}

fn sized<D: Driver>(job: &Job, control: &Control, role: Role) -> Result<Figures, Error> {
    if job.size == 16 << 10 { measure::run::<D, 2048>(job, control, role) } else { up_to_1k::<D>(job, control, role) }
}

fn any_size<D: Driver>(job: &Job, control: &Control, role: Role) -> Result<Figures, Error> {
    if job.size == 64 << 10 { measure::run::<D, 8192>(job, control, role) } else { sized::<D>(job, control, role) }
}

/// Everybody, in the order of the table.
pub static ALL: &[Entry] = &[
    entry::<limit::Slot<false>>(),
    entry::<limit::Slot<true>>(),
    entry::<limit::Tail<false>>(),
    entry::<limit::Tail<true>>(),
    entry::<limit::Free>(),
    tiny::<limit::Futex>(),
    entry::<lapwing::Lapwing<{ lapwing::COPY }, { lapwing::PUBLISH }>>(),
    entry::<lapwing::Lapwing<{ lapwing::DRAINS }, { lapwing::PUBLISH }>>(),
    entry::<lapwing::Lapwing<{ lapwing::PINNED }, { lapwing::PUBLISH }>>(),
    entry::<lapwing::Lapwing<{ lapwing::LOSSY }, { lapwing::PUBLISH }>>(),
    entry::<lapwing::Lapwing<{ lapwing::OBSERVER }, { lapwing::PUBLISH }>>(),
    entry::<lapwing::Lapwing<{ lapwing::COPY }, { lapwing::CLAIM }>>(),
    entry::<lapwing::Lapwing<{ lapwing::DRAINS }, { lapwing::BATCHES }>>(),
    entry::<lapwing::Lapwing<{ lapwing::PINNED }, { lapwing::BATCHES }>>(),
    entry::<peer::lapwing_c::LapwingC>(),
    #[cfg(feature = "disruptor-mp")]
    entry::<DisruptorMp<InLines, false>>(),
    #[cfg(feature = "disruptor-mp")]
    entry::<DisruptorMp<Close, false>>(),
    #[cfg(feature = "disruptor-mp")]
    entry::<DisruptorMp<InLines, true>>(),
    #[cfg(feature = "ringfire")]
    small::<peer::ringfire::Ringfire<true>>(),
    #[cfg(feature = "ringfire")]
    small::<peer::ringfire::Ringfire<false>>(),
    #[cfg(feature = "iceoryx2")]
    entry::<peer::iceoryx2::Iceoryx2<true>>(),
    #[cfg(feature = "iceoryx2")]
    entry::<peer::iceoryx2::Iceoryx2<false>>(),
    #[cfg(feature = "aeron")]
    entry::<peer::aeron::AeronIpc<false>>(),
    #[cfg(feature = "aeron")]
    entry::<peer::aeron::AeronIpc<true>>(),
    #[cfg(feature = "bcast")]
    entry::<peer::bcast::Bcast>(),
    #[cfg(feature = "crossbar")]
    tiny::<peer::crossbar::Crossbar>(),
    entry::<peer::kernel::Pipe>(),
    entry::<peer::kernel::Socket>(),
    #[cfg(feature = "disruptor")]
    tiny::<peer::threads::Disruptor>(),
    #[cfg(feature = "crossbeam-channel")]
    tiny::<peer::threads::Crossbeam>(),
    #[cfg(feature = "tokio")]
    tiny::<peer::threads::Tokio>(),
];

pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.facts.name == name)
}
