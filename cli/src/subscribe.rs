//! `sub`: records to standard output; a record counts as handled once it was written there and flushed.

use crate::args::{ClassWord, StartAt, Subscribe};
use crate::failure::{Exit, Failure};
use crate::frame::Joiner;
use crate::report::{Event, Range, Reader as Seen, Reporter, Summary, millis};
use crate::signals;
use lapwing::{Bus, Class, Closed, Error, Gap, Next, Observer, Reader, Start};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How often an idle reader looks at signals, its output and the writer's epoch. Records wake it at once.
const IDLE: Duration = Duration::from_millis(100);
/// How often a bus that is not there is looked for.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) fn run(args: &Subscribe, reporter: Reporter) -> Result<Exit, Failure> {
    if let Some(why) = args.contradiction() {
        return Err(Failure::usage(why));
    }
    signals::install()?;
    // Without the standard library's own buffer in between, so that a flush is a write.
    let output = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(|error| Failure::output(&error))?);
    let watched = output.try_clone().map_err(|error| Failure::output(&error))?;
    let source = attach(args)?;
    let books = Books { start: source.next_sequence(), next: source.next_sequence(), ..Books::default() };
    let mut session = Session {
        path: args.path.clone(),
        settled: books.clone(),
        books,
        epoch: source.epoch(),
        output: Joiner::new(args.frame, args.with_seq, output),
        watched,
        source,
        reporter,
        count: args.count,
        until_absent: args.until_absent,
    };
    reporter.tell(&session.source.attached(args));
    let started = Instant::now();
    let result = session.pump();
    let Session { settled: books, source, .. } = session;
    // Before the summary: who sees it finds the table settled.
    drop(source);
    let exit = match result {
        Ok(exit) => exit,
        Err(Failure::OutputClosed) => return Err(Failure::OutputClosed),
        Err(Failure::Told(exit, message)) => {
            reporter.tell(&Event::Error { code: exit as u8, message });
            exit
        }
    };
    let missed = books.missed != 0 && matches!(exit, Exit::Fine | Exit::WriterAbsent | Exit::NoBus);
    reporter.tell(&Event::Summary(books.summary(started.elapsed())));
    Ok(if missed { Exit::Missed } else { exit })
}

/// Attaches, after waiting for the bus if that was asked for.
fn attach(args: &Subscribe) -> Result<Source, Failure> {
    let since = Instant::now();
    loop {
        match Source::open(args) {
            Err(error @ (Error::NotFound { .. } | Error::NotReady { .. })) => {
                let wait = args.wait_for_bus.is_some_and(|wait| wait.0.is_none_or(|wait| since.elapsed() < wait));
                if !wait || signals::stopped() {
                    return Err(error.into());
                }
                std::thread::sleep(LOOK);
            }
            result => return Ok(result?),
        }
    }
}

/// A registered reader or an observer.
enum Source {
    Reader(Box<Reader>),
    Observer(Box<Observer>),
}

impl Source {
    fn open(args: &Subscribe) -> lapwing::Result<Self> {
        let start = match args.from {
            StartAt::Latest => Start::Latest,
            StartAt::Oldest => Start::Oldest,
            StartAt::After(sequence) => Start::After(sequence),
            StartAt::Since(time) => Start::Since(SystemTime::now().checked_sub(time).unwrap_or(SystemTime::UNIX_EPOCH)),
            StartAt::Resume => Start::Resume,
        };
        let class = match args.class {
            ClassWord::Observer => return Observer::open(&args.path, start).map(Box::new).map(Self::Observer),
            ClassWord::Gating => Class::Gating,
            ClassWord::Lossy => Class::Lossy,
            ClassWord::Pinned => Class::Pinned,
        };
        let options = Reader::options().class(class).start(start).auto_commit(false);
        let options = match &args.name {
            Some(name) => options.name(name).hold_while_away(args.hold_while_away),
            None => options,
        };
        options.open(&args.path).map(Box::new).map(Self::Reader)
    }

    fn attached(&self, args: &Subscribe) -> Event {
        let (id, class, passed_over) = match self {
            Self::Reader(reader) => (Some(reader.id().0), reader.class().to_string(), reader.passed_over()),
            Self::Observer(_) => (None, "observer".to_owned(), None),
        };
        let (name, sequence) = (args.name.clone(), self.next_sequence());
        Event::Attached { id, name, class, sequence, passed_over: passed_over.map(Range::from) }
    }

    /// What comes next; waits for it a moment if `wait`.
    fn next(&mut self, wait: bool) -> lapwing::Result<Next<'_>> {
        match (self, wait) {
            (Self::Reader(reader), true) => reader.next_timeout(IDLE),
            (Self::Reader(reader), false) => reader.try_next(),
            (Self::Observer(observer), true) => observer.next_timeout(IDLE),
            (Self::Observer(observer), false) => observer.try_next(),
        }
    }

    fn commit(&mut self) {
        if let Self::Reader(reader) = self {
            reader.commit();
        }
    }

    /// Goes on after an eviction with the next record wanted, or as close to it as the ring allows.
    fn rejoin(&mut self) -> lapwing::Result<Gap> {
        match self {
            // `Oldest` would go back to records that have been delivered.
            Self::Reader(reader) => reader.rejoin(Start::Resume),
            Self::Observer(observer) => Ok(Gap { first: observer.next_sequence(), end: observer.next_sequence() }),
        }
    }

    fn seen(&self) -> Option<Seen> {
        match self {
            Self::Reader(reader) => reader.info().as_ref().map(Seen::from),
            Self::Observer(_) => None,
        }
    }

    fn next_sequence(&self) -> u64 {
        match self {
            Self::Reader(reader) => reader.next_sequence(),
            Self::Observer(observer) => observer.next_sequence(),
        }
    }

    fn epoch(&self) -> u64 {
        match self {
            Self::Reader(reader) => reader.epoch(),
            Self::Observer(observer) => observer.epoch(),
        }
    }
}

/// This process's own account of the stream, kept apart from the bus's.
#[derive(Clone, Default)]
struct Books {
    /// First sequence wanted.
    start: u64,
    /// Next one.
    next: u64,
    first: Option<u64>,
    last: Option<u64>,
    delivered: u64,
    missed: u64,
    bytes: u64,
}

impl Books {
    fn deliver(&mut self, sequence: u64, length: usize) -> Result<(), Failure> {
        if sequence != self.next {
            return Err(Failure::other(format!("record {sequence} came where {} was due, without a gap", self.next)));
        }
        self.first.get_or_insert(sequence);
        self.last = Some(sequence);
        self.next = sequence + 1;
        self.delivered += 1;
        self.bytes += length as u64;
        Ok(())
    }

    fn miss(&mut self, gap: Gap) -> Result<(), Failure> {
        if self.delivered == 0 && self.missed == 0 {
            // What was missed before the place that the reader was given.
            self.start = self.start.min(gap.first);
        } else if gap.first != self.next {
            return Err(Failure::other(format!("a gap from {} came where {} was due", gap.first, self.next)));
        }
        self.next = gap.end;
        self.missed += gap.count();
        Ok(())
    }

    fn summary(&self, elapsed: Duration) -> Summary {
        Summary {
            delivered: Some(self.delivered),
            missed: Some(self.missed),
            first: self.first,
            last: self.last,
            start: Some(self.start),
            next: Some(self.next),
            bytes: self.bytes,
            elapsed_ms: millis(elapsed),
            ..Summary::default()
        }
    }
}

/// [`Next`] without its borrow.
enum Step {
    Record,
    Empty,
    Gap(Gap),
    Evicted,
    Closed(Closed),
    Absent,
    Replaced,
    Orphaned,
}

struct Session {
    path: PathBuf,
    source: Source,
    output: Joiner<File>,
    /// The same output, to look whether anyone still reads it.
    watched: File,
    books: Books,
    /// The same without what was not written yet, and may never be.
    settled: Books,
    epoch: u64,
    reporter: Reporter,
    count: Option<u64>,
    until_absent: bool,
}

impl Session {
    /// Moves records until the stream, the count or somebody's patience ends.
    fn pump(&mut self) -> Result<Exit, Failure> {
        let (mut wait, mut leaving) = (false, false);
        loop {
            if signals::stopped() {
                self.flush()?;
                return Ok(Exit::Fine);
            }
            let step = match self.take(wait) {
                Ok(step) => step,
                Err(failure) => {
                    // What was read before is whole.
                    self.flush()?;
                    return Err(failure);
                }
            };
            wait = false;
            if let Step::Record = step {
                if self.count == Some(self.books.delivered) {
                    self.flush()?;
                    return Ok(Exit::Fine);
                }
                if self.output.is_full() {
                    self.flush()?;
                    self.note_takeover();
                }
                continue;
            }
            self.flush()?;
            self.note_takeover();
            let sequence = self.books.next;
            match step {
                Step::Record => {}
                Step::Empty if leaving => return Ok(Exit::WriterAbsent),
                Step::Empty => {
                    self.look_at_output()?;
                    wait = true;
                }
                Step::Gap(gap) => self.miss(gap)?,
                Step::Evicted => {
                    if let Some(reader) = self.source.seen() {
                        self.reporter.tell(&Event::Evicted { reader, at_most: None });
                    }
                    let gap = self.source.rejoin()?;
                    if !gap.is_empty() {
                        self.miss(gap)?;
                    }
                }
                Step::Closed(Closed { sequence, epoch, code, reason, .. }) => {
                    self.reporter.tell(&Event::Closed { sequence, epoch, code, reason });
                    return Ok(Exit::Fine);
                }
                Step::Absent => {
                    self.reporter.tell(&Event::WriterAbsent { sequence });
                    // Once more without waiting: its last record may have come just before it went.
                    leaving = self.until_absent;
                }
                Step::Replaced => {
                    self.reporter.tell(&Event::Replaced { sequence });
                    return Ok(Exit::NoBus);
                }
                Step::Orphaned => {
                    self.reporter.tell(&Event::Orphaned { sequence });
                    return Ok(Exit::NoBus);
                }
            }
        }
    }

    /// Takes one step in the stream; a record goes to the output's buffer.
    fn take(&mut self, wait: bool) -> Result<Step, Failure> {
        Ok(match self.source.next(wait)? {
            Next::Record(record) => {
                self.books.deliver(record.sequence(), record.len())?;
                self.output.push(record.sequence(), record.payload()).map_err(|error| Failure::output(&error))?;
                Step::Record
            }
            Next::Empty => Step::Empty,
            Next::Gap(gap) => Step::Gap(gap),
            Next::Evicted(_) => Step::Evicted,
            Next::Closed(closed) => Step::Closed(closed),
            Next::Absent => Step::Absent,
            Next::Replaced => Step::Replaced,
            Next::Orphaned => Step::Orphaned,
            other => return Err(Failure::other(format!("the bus says {other:?}, which this version cannot handle"))),
        })
    }

    fn miss(&mut self, gap: Gap) -> Result<(), Failure> {
        self.reporter.tell(&Event::Gap(gap.into()));
        self.books.miss(gap)
    }

    /// Writes what has gathered, and only then tells the bus that it was handled.
    fn flush(&mut self) -> Result<(), Failure> {
        if !self.output.is_empty() {
            self.output.flush().map_err(|error| Failure::output(&error))?;
        }
        self.source.commit();
        self.settled = self.books.clone();
        Ok(())
    }

    fn note_takeover(&mut self) {
        let epoch = self.source.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            let writer = Bus::inspect(&self.path).ok().map(|snapshot| snapshot.writer);
            let sequence = writer.filter(|writer| writer.epoch == epoch).map(|writer| writer.resumed_at);
            // The first writer that publishes takes nothing over, though whoever created the bus counts as one before it.
            if sequence != Some(0) {
                self.reporter.tell(&Event::Takeover { epoch, sequence });
            }
        }
    }

    /// A reader whose output nobody reads must not hold the writer up until the next record comes.
    fn look_at_output(&self) -> Result<(), Failure> {
        let mut fds = [PollFd::new(self.watched.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(1..) if fds[0].revents().is_some_and(|events| events.intersects(gone)) => Err(Failure::OutputClosed),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_balance_and_notice_what_nobody_told() {
        let mut books = Books { start: 5, next: 5, ..Books::default() };
        // The place asked for was 3.
        books.miss(Gap { first: 3, end: 5 }).expect("an initial gap");
        books.deliver(5, 10).expect("in order");
        books.miss(Gap { first: 6, end: 8 }).expect("in order");
        books.deliver(8, 10).expect("in order");
        assert_eq!(books.next - books.start, books.delivered + books.missed);
        assert_eq!((books.first, books.last, books.bytes), (Some(5), Some(8), 20));
        assert!(books.deliver(10, 1).is_err());
        assert!(books.deliver(8, 1).is_err());
        assert!(books.miss(Gap { first: 10, end: 12 }).is_err());
    }
}
