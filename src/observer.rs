//! Observers: unregistered readers that need nothing but read permission on the ring, and never hold the writer up.

use crate::consume::Step;
use crate::error::{Error, Result};
use crate::files::{self, Role};
use crate::layout::ring as at;
use crate::report::Gap;
use crate::start::Start;
use crate::stream::{Filter, Next, Poll, Quick, Record, Stream, Wait};
use crate::sync::Ordering;
use crate::table::Table;
use crate::trace::changed;
use std::path::Path;
use std::time::{Duration, Instant};

/// A reader without a slot.
///
/// The writer neither waits for it nor knows of it; it learns its gaps exactly. Without access to the table nobody can
/// wake it, so its parking is a sleep of a millisecond at most.
///
/// ```
/// use lapwing::{Next, Observer, Options, Start};
/// # let path = std::env::temp_dir().join(format!("lapwing-doc-observer-{}", std::process::id()));
/// # let _ = lapwing::Bus::remove(&path);
/// let mut writer = Options::new().create(&path)?;
/// writer.publish(b"seen")?;
/// let mut observer = Observer::open(&path, Start::Oldest)?;
/// assert!(matches!(observer.try_next()?, Next::Record(record) if record.payload() == b"seen"));
/// # drop(writer);
/// # lapwing::Bus::remove(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Observer {
    stream: Stream,
    table: Option<Table>,
    wait: Wait,
    gap: Option<Gap>,
}

impl Observer {
    /// Attaches without registering.
    ///
    /// # Errors
    /// As [`ReaderOptions::open`](crate::ReaderOptions::open) from the ring's file; [`Error::FutureSequence`];
    /// [`Error::InvalidOption`] for [`Start::Resume`], which needs a name.
    pub fn open(path: impl AsRef<Path>, start: Start) -> Result<Self> {
        Self::check_start(start)?;
        let mut attached = files::attach_ring(path.as_ref(), Role::Reader)?;
        let (asked, place) = attached.start(start)?;
        // No table, or no permission on it, costs the wake-ups and nothing else.
        let table = attached.table(true).ok().flatten().map(|(table, _)| table);
        let ring = &attached.ring;
        let (epoch, closed) = (ring.get(at::EPOCH), ring.get(at::CLOSED_EPOCH));
        let told = if epoch > closed { closed } else { closed.saturating_sub(1) };
        let gap = Gap { first: asked, end: place.sequence };
        changed!(
            info,
            "attached",
            attached.paths.ring,
            role = "observer",
            sequence = place.sequence,
            missed = gap.count()
        );
        let stream = Stream::new(attached, place, told, Filter::default(), true);
        Ok(Self { stream, table, wait: Wait::Park, gap: (!gap.is_empty()).then_some(gap) })
    }

    fn check_start(start: Start) -> Result<()> {
        if start != Start::Resume {
            return Ok(());
        }
        Err(Error::InvalidOption {
            field: "start",
            value: "resume".into(),
            allowed: "latest, oldest, after or since: an observer has no name to resume by",
        })
    }

    /// Sets how `next` waits; parking by default.
    pub fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// Takes only records with `tag & mask == value` from now on.
    pub fn set_filter(&mut self, mask: u32, value: u32) {
        self.stream.set_filter(Filter { mask, value });
    }

    fn poll(stream: &mut Stream) -> Result<Poll> {
        match stream.quick() {
            Quick::Record(found) => return Ok(Poll::Record(found)),
            Quick::Empty => return Ok(Poll::Empty),
            Quick::Special => {}
        }
        // A second turn is for one that had only padding overwritten; lapped again so soon, it finds out at its next call.
        for _ in 0..2 {
            // Asked before the look: what the look finds empty then stays so.
            let replaced = stream.replaced();
            return Ok(match stream.step()? {
                Step::Record(found) => Poll::Record(found),
                Step::Lapped => match stream.move_up() {
                    gap if gap.is_empty() => continue,
                    gap => Poll::Gap(gap),
                },
                Step::Closed => Poll::Closed,
                _ if replaced => Poll::Replaced,
                _ => Poll::Empty,
            });
        }
        Ok(Poll::Empty)
    }

    /// Returns what comes next without waiting and without a system call.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Forked`], [`Error::Truncated`].
    pub fn try_next(&mut self) -> Result<Next<'_>> {
        self.stream.attached.check()?;
        if let Some(gap) = self.gap.take() {
            return Ok(Next::Gap(gap));
        }
        let poll = Self::poll(&mut self.stream)?;
        Ok(self.stream.present(poll))
    }

    /// Returns what comes next; waits for it without end.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    // An iterator lends no records.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Next<'_>> {
        self.next_until(None)
    }

    /// Returns what comes next; waits for it at most so long, and returns [`Next::Empty`] then.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Next<'_>> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Result<Next<'_>> {
        self.stream.attached.check()?;
        if let Some(gap) = self.gap.take() {
            return Ok(Next::Gap(gap));
        }
        // Whoever truncates the table takes the wake-ups and nothing else.
        let table = self.table.as_ref().filter(|table| !table.is_lost());
        let poll = self.stream.wait(self.wait, deadline, table, Self::poll)?;
        Ok(self.stream.present(poll))
    }

    /// Hands up to `max` records that are there to `handle`; returns how many, and why it stopped.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    pub fn drain(&mut self, max: usize, mut handle: impl FnMut(Record<'_>)) -> Result<(usize, Next<'_>)> {
        self.stream.attached.check()?;
        if let Some(gap) = self.gap.take() {
            return Ok((0, Next::Gap(gap)));
        }
        let mut count = 0;
        loop {
            count += self.stream.quick_burst(max - count, &mut |record| {
                handle(record);
                true
            });
            if count == max {
                return Ok((count, Next::Empty));
            }
            match Self::poll(&mut self.stream)? {
                Poll::Record(found) => {
                    handle(self.stream.record(&found));
                    count += 1;
                }
                other => return Ok((count, self.stream.present(other))),
            }
        }
    }

    /// Hands up to `max` records that are there to `handle`, as [`Reader::next_many`](crate::Reader::next_many) does.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next), before any record was handed out.
    pub fn next_many(
        &mut self,
        max: usize,
        timeout: Option<Duration>,
        mut handle: impl FnMut(Record<'_>) -> bool,
    ) -> Result<(usize, Next<'_>)> {
        self.stream.attached.check()?;
        if let Some(gap) = self.gap.take() {
            return Ok((0, Next::Gap(gap)));
        }
        if max == 0 {
            return Ok((0, Next::Empty));
        }
        let poll = if timeout == Some(Duration::ZERO) {
            Self::poll(&mut self.stream)?
        } else {
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            self.stream.wait(self.wait, deadline, self.table.as_ref(), Self::poll)?
        };
        let Poll::Record(found) = poll else { return Ok((0, self.stream.present(poll))) };
        if !self.stream.offer(&found, &mut handle) {
            return Ok((0, Next::Empty));
        }
        Ok((1 + self.stream.offer_more(max - 1, &mut handle), Next::Empty))
    }

    /// Goes elsewhere in the stream; what of it is gone comes as the next gap.
    ///
    /// # Errors
    /// [`Error::FutureSequence`], [`Error::Forked`]; [`Error::InvalidOption`] for [`Start::Resume`].
    pub fn seek(&mut self, start: Start) -> Result<()> {
        self.stream.attached.check()?;
        Self::check_start(start)?;
        let (asked, place) = self.stream.attached.start(start)?;
        self.stream.go_to(place);
        let gap = Gap { first: asked, end: place.sequence };
        self.gap = (!gap.is_empty()).then_some(gap);
        Ok(())
    }

    /// Returns the sequence of the next record it will look at.
    pub fn next_sequence(&self) -> u64 {
        self.stream.consumer.next.sequence
    }

    /// Returns the epoch: how many writers the bus has had.
    pub fn epoch(&self) -> u64 {
        self.stream.ring().word(at::EPOCH).load(Ordering::Relaxed)
    }

    /// Returns the sequence that the latest writer began with.
    pub fn resumed_at(&self) -> u64 {
        self.stream.ring().get(at::RESUMED_AT)
    }

    /// Returns the largest payload the bus takes, in bytes.
    pub fn max_record(&self) -> usize {
        self.stream.attached.facts.geometry.max_record() as usize
    }

    /// Says whether a writer is alive: the kernel's word.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Forked`].
    pub fn writer_alive(&self) -> Result<bool> {
        self.stream.attached.check()?;
        self.stream.attached.writer_alive()
    }
}
