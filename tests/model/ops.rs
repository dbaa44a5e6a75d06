//! The operations a history is made of, and how they are drawn.

use lapwing::{Class, Policy};
use proptest::prelude::*;
use std::time::Duration;

/// What a bus is created with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) capacity: u64,
    pub(crate) stamped: bool,
    pub(crate) slots: u32,
}

/// A payload's length, to be scaled to the bus at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Small(usize),
    /// In 65536ths of the largest record.
    Part(u16),
    /// The largest record less so many bytes.
    Largest(usize),
    /// So many bytes more than that, and one.
    TooLarge(usize),
}

/// How a record is published.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Try,
    Publish,
    /// As three slices, cut at these 256ths.
    Vectored(u8, u8),
    /// Claimed, filled as a slice, committed.
    Claim,
    /// Claimed, written to, and committed at this 256th.
    ClaimShort(u8),
    /// Claimed, scribbled on, given up.
    ClaimAbort,
}

/// Where a reader starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Latest,
    Oldest,
    /// After the sequence so many behind the next one.
    After(u64),
    /// After a sequence so far in the future.
    Future(u64),
    SinceEver,
    SinceNever,
    Resume,
}

/// How a reader asks for what comes next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Try,
    Timeout,
    /// Blocking; only where the model knows that something is there.
    Next,
    Drain(usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Joiner {
    pub(crate) class: Class,
    pub(crate) from: From,
    pub(crate) name: Option<u8>,
    pub(crate) hold: bool,
    pub(crate) auto: bool,
    pub(crate) filter: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Publish {
        length: Length,
        tag: u32,
        how: How,
    },
    Batch {
        lengths: Vec<Length>,
        commit: bool,
    },
    Policy(Policy),
    /// Publishes so many records; readers in the way read on.
    Laps {
        count: u16,
        length: Length,
    },
    Join(Joiner),
    /// `who` is taken modulo the readers that are there; so below.
    Read {
        who: u8,
        count: u8,
        ask: Ask,
    },
    Commit {
        who: u8,
    },
    Leave {
        who: u8,
    },
    Rejoin {
        who: u8,
        from: From,
    },
    Evict {
        who: u8,
        by_writer: bool,
    },
    Forget {
        name: u8,
    },
    Reap,
    Observe {
        from: From,
        filter: Option<u32>,
    },
    Watch {
        who: u8,
        count: u8,
        ask: Ask,
    },
    Seek {
        who: u8,
        from: From,
    },
    Unobserve {
        who: u8,
    },
    Takeover,
    Close {
        code: u32,
        reason: u8,
    },
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let capacity = prop_oneof![4 => Just(4096), 2 => Just(8192), 1 => Just(16384), 1 => Just(1 << 20)];
    (capacity, any::<bool>(), 1..8u32).prop_map(|(capacity, stamped, slots)| Shape { capacity, stamped, slots })
}

fn length() -> impl Strategy<Value = Length> {
    prop_oneof![
        8 => (0..100usize).prop_map(Length::Small),
        6 => any::<u16>().prop_map(Length::Part),
        2 => (0..40usize).prop_map(Length::Largest),
        1 => (0..40usize).prop_map(Length::TooLarge),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        3 => Just(How::Try),
        3 => Just(How::Publish),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| How::Vectored(a, b)),
        2 => Just(How::Claim),
        2 => any::<u8>().prop_map(How::ClaimShort),
        1 => Just(How::ClaimAbort),
    ]
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        3 => Just(From::Latest),
        3 => Just(From::Oldest),
        3 => (1..200u64).prop_map(From::After),
        1 => (0..3u64).prop_map(From::Future),
        1 => Just(From::SinceEver),
        1 => Just(From::SinceNever),
        3 => Just(From::Resume),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => Just(Ask::Try),
        1 => Just(Ask::Timeout),
        2 => Just(Ask::Next),
        3 => (0..40usize).prop_map(Ask::Drain),
    ]
}

fn filter() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![4 => Just(None), 1 => (0..2u32).prop_map(Some)]
}

fn joiner() -> impl Strategy<Value = Joiner> {
    let class = prop_oneof![3 => Just(Class::Gating), 2 => Just(Class::Lossy), 1 => Just(Class::Pinned)];
    let name = prop_oneof![1 => Just(None), 1 => (0..3u8).prop_map(Some)];
    (class, from(), name, any::<bool>(), prop::bool::weighted(0.7), filter())
        .prop_map(|(class, from, name, hold, auto, filter)| Joiner { class, from, name, hold, auto, filter })
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Refuse), Just(Policy::Wait(Some(Duration::ZERO))), Just(Policy::Evict)]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let who = any::<u8>;
    prop_oneof![
        12 => (length(), any::<u32>(), how()).prop_map(|(length, tag, how)| Op::Publish { length, tag, how }),
        3 => (prop::collection::vec(length(), 0..12), prop::bool::weighted(0.8))
            .prop_map(|(lengths, commit)| Op::Batch { lengths, commit }),
        2 => policy().prop_map(Op::Policy),
        5 => (1..60u16, length()).prop_map(|(count, length)| Op::Laps { count, length }),
        6 => joiner().prop_map(Op::Join),
        12 => (who(), 1..30u8, ask()).prop_map(|(who, count, ask)| Op::Read { who, count, ask }),
        3 => who().prop_map(|who| Op::Commit { who }),
        3 => who().prop_map(|who| Op::Leave { who }),
        3 => (who(), from()).prop_map(|(who, from)| Op::Rejoin { who, from }),
        2 => (who(), any::<bool>()).prop_map(|(who, by_writer)| Op::Evict { who, by_writer }),
        1 => (0..3u8).prop_map(|name| Op::Forget { name }),
        1 => Just(Op::Reap),
        2 => (from(), filter()).prop_map(|(from, filter)| Op::Observe { from, filter }),
        5 => (who(), 1..30u8, ask()).prop_map(|(who, count, ask)| Op::Watch { who, count, ask }),
        1 => (who(), from()).prop_map(|(who, from)| Op::Seek { who, from }),
        1 => who().prop_map(|who| Op::Unobserve { who }),
        2 => Just(Op::Takeover),
        2 => (any::<u32>(), 0..121u8).prop_map(|(code, reason)| Op::Close { code, reason }),
    ]
}
