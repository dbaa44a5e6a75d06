//! The limit: the least that two processes can do to hand over bytes, without anything a bus needs beside.
//!
//! They are programs, not proofs: something cleverer may exist, and then belongs here.

use crate::job::{At, Idle, Measure};
use crate::peer::{Driver, Error, Facts, Kind, Receiver, Sender};
use crate::shared::Mapping;
use std::ptr;
use std::sync::atomic::Ordering;

const LINE: usize = 128;
const MAX_READERS: usize = 64;
/// Where the slots start: after the tail and a line for each reader's cursor.
const SLOTS: usize = (1 + MAX_READERS) * LINE;
/// A stream's cursor is published so many times a lap.
const CURSORS_A_LAP: u64 = 8;

fn cursor_at(reader: usize) -> usize {
    (1 + reader) * LINE
}

fn create(at: &At, slot: usize) -> Result<Mapping, Error> {
    if at.readers > MAX_READERS {
        return Err(format!("at most {MAX_READERS} readers").into());
    }
    Ok(Mapping::create(&at.path(), SLOTS + at.job.slots * slot)?)
}

/// The sender's side of the flow control: the slowest cursor, looked at only when the ring seems full.
struct Gate {
    free: u64,
    slots: u64,
    readers: usize,
}

impl Gate {
    fn new(at: &At) -> Self {
        Self { free: at.job.slots as u64, slots: at.job.slots as u64, readers: at.readers }
    }

    #[inline(always)]
    fn pass(&mut self, map: &Mapping, next: u64) {
        while next >= self.free {
            let slowest = (0..self.readers).map(|reader| map.word(cursor_at(reader)).load(Ordering::Acquire)).min();
            self.free = slowest.unwrap_or(next) + self.slots;
        }
    }
}

/// The reader's side of the flow control.
struct Cursor {
    at: usize,
    told: u64,
    step: u64,
}

impl Cursor {
    fn new(at: &At, index: usize) -> Self {
        Self { at: cursor_at(index), told: 0, step: (at.job.slots as u64 / CURSORS_A_LAP).max(1) }
    }

    #[inline(always)]
    fn tell(&mut self, map: &Mapping, next: u64) {
        if next - self.told >= self.step {
            map.word(self.at).store(next, Ordering::Release);
            self.told = next;
        }
    }
}

/// Slots that carry their own sequence in front: up to 56 bytes of payload share one line with it.
pub struct Slot<const GATED: bool>;

const fn slot_size(words: usize) -> usize {
    ((words + 1) * 8).next_multiple_of(64)
}

pub struct SlotSender<const W: usize, const GATED: bool> {
    map: Mapping,
    mask: u64,
    next: u64,
    gate: Gate,
}

pub struct SlotReceiver<const W: usize, const GATED: bool> {
    map: Mapping,
    mask: u64,
    next: u64,
    cursor: Cursor,
}

/// Where the payload lies: after the sequence.
const PAYLOAD: usize = 8;

impl<const GATED: bool> Driver for Slot<GATED> {
    const FACTS: Facts = Facts {
        name: if GATED { "limit-slot-gated" } else { "limit-slot" },
        kind: Kind::Limit,
        lossless: true,
        latency_slots: 1,
        stream_bytes: 4 << 20,
        max_slots: 65_536,
        stream_idle: Idle::Pace(1000),
        more: if GATED { &[Measure::Rate] } else { &[] },
        not: if GATED { &[Measure::Latency] } else { &[Measure::Throughput] },
        setting: "slots of whole lines with their own sequence; cursors eight times a lap",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = SlotSender<W, GATED>;
    type Receiver<const W: usize> = SlotReceiver<W, GATED>;

    fn sender<const W: usize>(at: &At) -> Result<SlotSender<W, GATED>, Error> {
        let map = create(at, slot_size(W))?;
        Ok(SlotSender { map, mask: at.job.slots as u64 - 1, next: 0, gate: Gate::new(at) })
    }

    fn receiver<const W: usize>(at: &At, index: usize) -> Result<SlotReceiver<W, GATED>, Error> {
        let map = Mapping::open(&at.path())?;
        Ok(SlotReceiver { map, mask: at.job.slots as u64 - 1, next: 0, cursor: Cursor::new(at, index) })
    }
}

impl<const W: usize, const GATED: bool> Sender<W> for SlotSender<W, GATED> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        if GATED {
            self.gate.pass(&self.map, self.next);
        }
        let slot = SLOTS + (self.next & self.mask) as usize * slot_size(W);
        // SAFETY: the slot lies in the mapping; the reader looks at it only after the sequence, and is done with it (gate, or ping-pong).
        unsafe { ptr::copy_nonoverlapping(record.as_ptr(), self.map.at(slot + PAYLOAD).cast::<u64>(), W) };
        self.next += 1;
        self.map.word(slot).store(self.next, Ordering::Release);
    }
}

impl<const W: usize, const GATED: bool> Receiver<W> for SlotReceiver<W, GATED> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let from = self.next;
        loop {
            let slot = SLOTS + (self.next & self.mask) as usize * slot_size(W);
            if self.map.word(slot).load(Ordering::Acquire) != self.next + 1 {
                return (self.next - from) as usize;
            }
            // SAFETY: in the mapping, and not written again before the cursor passes it (or, in ping-pong, before the answer).
            sink(unsafe { &*self.map.at(slot + PAYLOAD).cast::<[u64; W]>() });
            self.next += 1;
            if !GATED {
                return 1;
            }
            self.cursor.tell(&self.map, self.next);
        }
    }
}

/// Bare payloads one after the other, and a tail that the reader polls. With `COPY`, the reader copies each out first.
pub struct Tail<const COPY: bool>;

pub struct TailSender<const W: usize> {
    map: Mapping,
    mask: u64,
    next: u64,
    gate: Gate,
    gated: bool,
}

pub struct TailReceiver<const W: usize, const COPY: bool> {
    map: Mapping,
    mask: u64,
    next: u64,
    cursor: Cursor,
    gated: bool,
    copy: Box<[u64]>,
}

impl<const COPY: bool> Driver for Tail<COPY> {
    const FACTS: Facts = Facts {
        name: if COPY { "limit-copy" } else { "limit-tail" },
        kind: Kind::Limit,
        lossless: true,
        latency_slots: 1,
        stream_bytes: 4 << 20,
        max_slots: 65_536,
        stream_idle: Idle::Pace(200),
        not: if COPY { &[Measure::Latency] } else { &[] },
        setting: if COPY {
            "bare payloads and a shared tail; copied out, then checked"
        } else {
            "bare payloads and a shared tail; checked in place"
        },
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = TailSender<W>;
    type Receiver<const W: usize> = TailReceiver<W, COPY>;

    fn sender<const W: usize>(at: &At) -> Result<TailSender<W>, Error> {
        let map = create(at, W * 8)?;
        Ok(TailSender { map, mask: at.job.slots as u64 - 1, next: 0, gate: Gate::new(at), gated: at.is_stream() })
    }

    fn receiver<const W: usize>(at: &At, index: usize) -> Result<TailReceiver<W, COPY>, Error> {
        let map = Mapping::open(&at.path())?;
        let (mask, cursor, copy) = (at.job.slots as u64 - 1, Cursor::new(at, index), vec![0; W].into_boxed_slice());
        Ok(TailReceiver { map, mask, next: 0, cursor, gated: at.is_stream(), copy })
    }
}

impl<const W: usize> Sender<W> for TailSender<W> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        if self.gated {
            self.gate.pass(&self.map, self.next);
        }
        let slot = SLOTS + (self.next & self.mask) as usize * (W * 8);
        // SAFETY: in the mapping; the reader looks at it only after the tail, and is done with it (gate, or ping-pong).
        unsafe { ptr::copy_nonoverlapping(record.as_ptr(), self.map.at(slot).cast::<u64>(), W) };
        self.next += 1;
        self.map.word(0).store(self.next, Ordering::Release);
    }
}

impl<const W: usize, const COPY: bool> Receiver<W> for TailReceiver<W, COPY> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let tail = self.map.word(0).load(Ordering::Acquire);
        let count = tail - self.next;
        while self.next < tail {
            let slot = SLOTS + (self.next & self.mask) as usize * (W * 8);
            let payload = self.map.at(slot).cast::<u64>();
            if COPY {
                // SAFETY: in the mapping, and not written again before the cursor passes it; the copy has room for a record.
                sink(unsafe {
                    ptr::copy_nonoverlapping(payload, self.copy.as_mut_ptr(), W);
                    &*self.copy.as_ptr().cast::<[u64; W]>()
                });
            } else {
                // SAFETY: in the mapping, and not written again before the cursor passes it (or, in ping-pong, before the answer).
                sink(unsafe { &*payload.cast::<[u64; W]>() });
            }
            self.next += 1;
            if self.gated {
                self.cursor.tell(&self.map, self.next);
            }
        }
        count as usize
    }
}

/// Slots with their own sequence, and a sender that never looks at its readers.
pub struct Free;

pub struct FreeSender<const W: usize> {
    map: Mapping,
    mask: u64,
    next: u64,
}

pub struct FreeReceiver<const W: usize> {
    map: Mapping,
    mask: u64,
    next: u64,
    copy: Box<[u64]>,
}

impl Driver for Free {
    const FACTS: Facts = Facts {
        name: "limit-free",
        kind: Kind::Limit,
        lossless: false,
        stream_bytes: 1 << 20,
        stream_idle: Idle::Pace(1000),
        not: &[Measure::Latency],
        setting: "slots with their own sequence, no flow control: the reader takes what it still finds",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = FreeSender<W>;
    type Receiver<const W: usize> = FreeReceiver<W>;

    fn sender<const W: usize>(at: &At) -> Result<FreeSender<W>, Error> {
        Ok(FreeSender { map: create(at, slot_size(W))?, mask: at.job.slots as u64 - 1, next: 0 })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<FreeReceiver<W>, Error> {
        let map = Mapping::open(&at.path())?;
        Ok(FreeReceiver { map, mask: at.job.slots as u64 - 1, next: 0, copy: vec![0; W].into_boxed_slice() })
    }
}

impl<const W: usize> Sender<W> for FreeSender<W> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        let slot = SLOTS + (self.next & self.mask) as usize * slot_size(W);
        let sequence = self.map.word(slot);
        // Nobody may take the old sequence for the new payload.
        sequence.store(0, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::Release);
        for (index, &value) in record.iter().enumerate() {
            self.map.word(slot + PAYLOAD + index * 8).store(value, Ordering::Relaxed);
        }
        self.next += 1;
        sequence.store(self.next, Ordering::Release);
    }
}

impl<const W: usize> Receiver<W> for FreeReceiver<W> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let mut count = 0;
        loop {
            let slot = SLOTS + (self.next & self.mask) as usize * slot_size(W);
            let sequence = self.map.word(slot);
            let seen = sequence.load(Ordering::Acquire);
            if seen <= self.next {
                return count;
            }
            for (index, value) in self.copy.iter_mut().enumerate() {
                *value = self.map.word(slot + PAYLOAD + index * 8).load(Ordering::Relaxed);
            }
            std::sync::atomic::fence(Ordering::Acquire);
            if sequence.load(Ordering::Relaxed) == seen {
                // SAFETY: the copy holds a record.
                sink(unsafe { &*self.copy.as_ptr().cast::<[u64; W]>() });
                count += 1;
            }
            self.next = seen;
        }
    }
}

/// One record in one place, and a futex: what a wake-up costs without a bus.
pub struct Futex;

pub struct FutexSender {
    map: Mapping,
    next: u64,
}

pub struct FutexReceiver {
    map: Mapping,
    next: u64,
}

/// Calls futex on the low half of a word.
fn futex(map: &Mapping, operation: i32, value: u32, timeout: Option<&libc::timespec>) {
    let timeout = timeout.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the address is valid while the mapping is; the kernel checks the rest.
    unsafe { libc::syscall(libc::SYS_futex, map.at(0), operation, value, timeout, 0, 0) };
}

impl Driver for Futex {
    const FACTS: Facts = Facts {
        name: "limit-futex",
        kind: Kind::Limit,
        more: &[Measure::Wake, Measure::Idle],
        not: &[Measure::Latency, Measure::Throughput],
        setting: "one record in one place; the sender always wakes, the reader always sleeps",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = FutexSender;
    type Receiver<const W: usize> = FutexReceiver;

    fn sender<const W: usize>(at: &At) -> Result<FutexSender, Error> {
        Ok(FutexSender { map: create(at, W * 8)?, next: 0 })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<FutexReceiver, Error> {
        Ok(FutexReceiver { map: Mapping::open(&at.path())?, next: 0 })
    }
}

impl<const W: usize> Sender<W> for FutexSender {
    fn send(&mut self, record: &[u64; W]) {
        // SAFETY: in the mapping; the reader is done with the last record before the next one is sent.
        unsafe { ptr::copy_nonoverlapping(record.as_ptr(), self.map.at(SLOTS).cast::<u64>(), W) };
        self.next += 1;
        self.map.word(0).store(self.next, Ordering::Release);
        futex(&self.map, libc::FUTEX_WAKE, 1, None);
    }
}

impl<const W: usize> Receiver<W> for FutexReceiver {
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        if self.map.word(0).load(Ordering::Acquire) == self.next {
            return 0;
        }
        // SAFETY: in the mapping, and not written again before the answer.
        sink(unsafe { &*self.map.at(SLOTS).cast::<[u64; W]>() });
        self.next += 1;
        1
    }

    fn receive_parked(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        if self.map.word(0).load(Ordering::Acquire) == self.next {
            let timeout = libc::timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            futex(&self.map, libc::FUTEX_WAIT, self.next as u32, Some(&timeout));
        }
        self.receive(sink)
    }
}
