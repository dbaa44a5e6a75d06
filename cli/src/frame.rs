//! Where a record begins and ends in a byte stream: cutting input into records, and writing records to an output.
//!
//! | frame     | in the stream                                                              |
//! |-----------|----------------------------------------------------------------------------|
//! | `lines`   | the record, then a newline; a last line without one is a record as well      |
//! | `len32`   | the record's length in four bytes, the lowest first, then the record         |
//! | `fixed:N` | N bytes (input only)                                                         |
//! | `raw`     | the record and nothing else (output only)                                    |

use crate::failure::too_large;
use std::fmt;
use std::io::{self, Read, Write};

/// Bytes of a length.
const LENGTH: usize = 4;
/// Input asked for at a time, and room for it.
const CHUNK: usize = 256 * 1024;
/// Output gathered before it is written.
const GATHER: usize = 64 * 1024;

/// How input is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFrame {
    Lines,
    Len32,
    Fixed(usize),
}

/// Parses `lines`, `len32` or `fixed:N`.
pub(crate) fn parse_in_frame(text: &str) -> Result<InFrame, String> {
    match text {
        "lines" => Ok(InFrame::Lines),
        "len32" => Ok(InFrame::Len32),
        _ => match text.strip_prefix("fixed:").map(str::parse) {
            Some(Ok(length @ 1..=0x3fff_ffff)) => Ok(InFrame::Fixed(length)),
            Some(_) => Err("fixed:N needs a record length N of 1 to 1073741823 bytes".to_owned()),
            None => Err("one of lines, len32, fixed:N".to_owned()),
        },
    }
}

/// Input that cannot be cut into records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The record is larger than the bus takes; `at_least` if its end was not reached.
    TooLarge { record: u64, length: u64, at_least: bool, max: u64 },
    /// The input ends within the length of a record.
    ShortLength { record: u64, found: usize },
    /// The input ends within a record.
    ShortRecord { record: u64, length: u64, found: u64 },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { record, length, at_least, max } => {
                let more = if *at_least { " (and its end is not reached)" } else { "" };
                write!(f, "input record {record}{more}: {}", too_large(*length, *max))
            }
            Self::ShortLength { record, found } => {
                write!(f, "input record {record}: the input ends after {found} of the {LENGTH} bytes of its length")
            }
            Self::ShortRecord { record, length, found } => {
                write!(f, "input record {record}: the input ends after {found} of its {length} bytes")
            }
        }
    }
}

/// Cuts a stream of bytes into records, in memory bounded by the largest record.
pub(crate) struct Cutter {
    frame: InFrame,
    /// Largest record, in bytes.
    max: usize,
    buffer: Vec<u8>,
    /// What of the buffer is input not yet consumed.
    start: usize,
    end: usize,
    /// How far behind `start` no newline was found, so that none of it is looked at twice.
    scanned: usize,
    ended: bool,
    /// Records consumed.
    records: u64,
    /// Bytes that consuming the record last looked at takes off.
    width: usize,
}

impl Cutter {
    pub(crate) fn new(frame: InFrame, max: usize) -> Self {
        Self { frame, max, buffer: vec![0; CHUNK], start: 0, end: 0, scanned: 0, ended: false, records: 0, width: 0 }
    }

    /// Says whether the input has ended.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads once; blocks if nothing is there.
    pub(crate) fn fill(&mut self, input: &mut impl Read) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() {
                // One byte more than the largest record and its length: enough to see that one is too large.
                let most = self.max.saturating_add(LENGTH + 1).max(CHUNK);
                self.buffer.resize(self.buffer.len().saturating_mul(2).min(most), 0);
            }
        }
        loop {
            match input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }

    /// Returns the next record without consuming it; `None` if the rest of it has yet to be read, or there is none.
    pub(crate) fn peek(&mut self) -> Result<Option<&[u8]>, Broken> {
        let input = &self.buffer[self.start..self.end];
        let (skip, length, width) = match self.frame {
            InFrame::Lines => match memchr::memchr(b'\n', &input[self.scanned..]) {
                Some(at) => {
                    let length = self.scanned + at;
                    self.scanned = length;
                    (0, length, length + 1)
                }
                None => {
                    self.scanned = input.len();
                    if input.len() > self.max {
                        return Err(self.too_large(input.len() as u64, !self.ended));
                    }
                    if !self.ended || input.is_empty() {
                        return Ok(None);
                    }
                    (0, input.len(), input.len())
                }
            },
            InFrame::Len32 => match input.first_chunk::<LENGTH>() {
                Some(length) => {
                    let length = u32::from_le_bytes(*length) as usize;
                    (LENGTH, length, LENGTH + length)
                }
                None if self.ended && !input.is_empty() => {
                    return Err(Broken::ShortLength { record: self.records + 1, found: input.len() });
                }
                None => return Ok(None),
            },
            InFrame::Fixed(_) if input.is_empty() => return Ok(None),
            InFrame::Fixed(length) => (0, length, length),
        };
        if length > self.max {
            return Err(self.too_large(length as u64, false));
        }
        if input.len() < skip + length {
            if !self.ended {
                return Ok(None);
            }
            let (length, found) = (length as u64, (input.len() - skip) as u64);
            return Err(Broken::ShortRecord { record: self.records + 1, length, found });
        }
        self.width = width;
        Ok(Some(&self.buffer[self.start + skip..self.start + skip + length]))
    }

    fn too_large(&self, length: u64, at_least: bool) -> Broken {
        Broken::TooLarge { record: self.records + 1, length, at_least, max: self.max as u64 }
    }

    /// Consumes the record last looked at.
    pub(crate) fn consume(&mut self) {
        self.start += self.width;
        self.scanned = 0;
        self.records += u64::from(self.width != 0);
        self.width = 0;
    }

    /// Bytes read that belong to no complete record.
    #[cfg(test)]
    fn rest(&self) -> usize {
        self.end - self.start
    }
}

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutFrame {
    /// The record, then a newline.
    Lines,
    /// The record's length in four bytes, the lowest first, then the record.
    Len32,
    /// The record and nothing else.
    Raw,
}

/// Writes records: gathers small ones, passes large ones through.
pub(crate) struct Joiner<W> {
    frame: OutFrame,
    with_sequence: bool,
    gathered: Vec<u8>,
    output: W,
}

impl<W: Write> Joiner<W> {
    pub(crate) fn new(frame: OutFrame, with_sequence: bool, output: W) -> Self {
        Self { frame, with_sequence, gathered: Vec::with_capacity(2 * GATHER), output }
    }

    /// Adds a record; writes when enough has gathered.
    pub(crate) fn push(&mut self, sequence: u64, payload: &[u8]) -> io::Result<()> {
        let prefix = if self.with_sequence { format!("{sequence}\t") } else { String::new() };
        if self.frame == OutFrame::Len32 {
            // A record has less than 2^30 bytes, so prefix and all fit.
            let length = u32::try_from(prefix.len() + payload.len()).unwrap_or(u32::MAX);
            self.gathered.extend_from_slice(&length.to_le_bytes());
        }
        self.gathered.extend_from_slice(prefix.as_bytes());
        if payload.len() >= GATHER {
            self.write()?;
            self.output.write_all(payload)?;
        } else {
            self.gathered.extend_from_slice(payload);
        }
        if self.frame == OutFrame::Lines {
            self.gathered.push(b'\n');
        }
        Ok(())
    }

    /// Says whether it is time to flush.
    pub(crate) fn is_full(&self) -> bool {
        self.gathered.len() >= GATHER
    }

    /// Says whether nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    fn write(&mut self) -> io::Result<()> {
        self.output.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }

    /// Writes everything gathered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most `step` bytes a read.
    struct Drip<'a>(&'a [u8], usize);
    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn cut(frame: InFrame, max: usize, input: &[u8], step: usize) -> Result<Vec<Vec<u8>>, Broken> {
        let mut cutter = Cutter::new(frame, max);
        let mut input = Drip(input, step);
        let mut records = Vec::new();
        loop {
            while let Some(record) = cutter.peek()? {
                records.push(record.to_vec());
                cutter.consume();
            }
            if cutter.ended() {
                assert_eq!(cutter.rest(), 0);
                return Ok(records);
            }
            cutter.fill(&mut input).expect("memory does not fail");
        }
    }

    fn lines(text: &str) -> Vec<Vec<u8>> {
        text.split_terminator('\n').map(|line| line.as_bytes().to_vec()).collect()
    }

    #[test]
    fn lines_are_cut_the_same_however_they_arrive() {
        for text in ["", "\n", "a", "a\n", "a\nb", "\n\na\r\n\n", "one\ntwo\nthree\n"] {
            for step in 1..8 {
                assert_eq!(cut(InFrame::Lines, 100, text.as_bytes(), step), Ok(lines(text)), "{text:?} by {step}");
            }
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_a_record_and_no_longer() {
        let max = 3 * CHUNK;
        let mut text = vec![b'x'; max];
        for step in [CHUNK / 3 + 1, usize::MAX] {
            assert_eq!(cut(InFrame::Lines, max, &text, step).map(|records| records.len()), Ok(1));
        }
        text.push(b'x');
        let broken = cut(InFrame::Lines, max, &text, usize::MAX).expect_err("too long");
        assert!(matches!(broken, Broken::TooLarge { record: 1, length, .. } if length > max as u64), "{broken}");
        text.push(b'\n');
        assert!(cut(InFrame::Lines, max, &text, usize::MAX).is_err());
    }

    #[test]
    fn an_endless_line_is_refused_in_bounded_memory() {
        let mut cutter = Cutter::new(InFrame::Lines, 2 * CHUNK);
        let broken = loop {
            if let Err(broken) = cutter.peek() {
                break broken;
            }
            cutter.fill(&mut io::repeat(b'x')).expect("memory does not fail");
        };
        assert!(matches!(broken, Broken::TooLarge { at_least: true, .. }));
        assert!(cutter.buffer.len() <= 2 * CHUNK + LENGTH + 1);
    }

    #[test]
    fn lengths_are_honoured_and_broken_ones_told() {
        let mut input = Vec::new();
        for record in [&b"abc"[..], b"", b"line\nbreak"] {
            input.extend_from_slice(&(record.len() as u32).to_le_bytes());
            input.extend_from_slice(record);
        }
        for step in 1..9 {
            let records = cut(InFrame::Len32, 10, &input, step).expect("whole records");
            assert_eq!(records, [&b"abc"[..], b"", b"line\nbreak"]);
        }
        let all = input.len();
        assert_eq!(
            cut(InFrame::Len32, 10, &input[..all - 1], 3),
            Err(Broken::ShortRecord { record: 3, length: 10, found: 9 })
        );
        assert_eq!(cut(InFrame::Len32, 10, &input[..9], 3), Err(Broken::ShortLength { record: 2, found: 2 }));
        assert_eq!(
            cut(InFrame::Len32, 9, &input, 3),
            Err(Broken::TooLarge { record: 3, length: 10, at_least: false, max: 9 })
        );
        assert!(matches!(
            cut(InFrame::Len32, 9, &[0xff; 40], 3),
            Err(Broken::TooLarge { record: 1, length: 0xffff_ffff, .. })
        ));
    }

    #[test]
    fn fixed_records_leave_no_rest() {
        assert_eq!(cut(InFrame::Fixed(2), 2, b"aabb", 3), Ok(vec![b"aa".to_vec(), b"bb".to_vec()]));
        assert_eq!(cut(InFrame::Fixed(3), 3, b"aaab", 1), Err(Broken::ShortRecord { record: 2, length: 3, found: 1 }));
        assert!(matches!(cut(InFrame::Fixed(3), 2, b"aaab", 1), Err(Broken::TooLarge { length: 3, max: 2, .. })));
        assert_eq!(cut(InFrame::Fixed(3), 2, b"", 1), Ok(vec![]));
    }

    #[test]
    fn frame_words() {
        assert_eq!(parse_in_frame("fixed:64"), Ok(InFrame::Fixed(64)));
        for text in ["", "raw", "fixed", "fixed:", "fixed:0", "fixed:-1", "fixed:1073741824", "Lines"] {
            assert!(parse_in_frame(text).is_err(), "{text}");
        }
    }

    fn join(frame: OutFrame, with_sequence: bool, records: &[&[u8]]) -> Vec<u8> {
        let mut joiner = Joiner::new(frame, with_sequence, Vec::new());
        for (sequence, record) in records.iter().enumerate() {
            joiner.push(sequence as u64, record).expect("memory does not fail");
        }
        joiner.flush().expect("memory does not fail");
        joiner.output
    }

    #[test]
    fn output_in_each_frame_and_with_sequences() {
        assert_eq!(join(OutFrame::Lines, false, &[b"a", b"", b"bc"]), b"a\n\nbc\n");
        assert_eq!(join(OutFrame::Lines, true, &[b"a", b""]), b"0\ta\n1\t\n");
        assert_eq!(join(OutFrame::Raw, false, &[b"a", b"", b"bc"]), b"abc");
        assert_eq!(join(OutFrame::Len32, false, &[b"a", b""]), b"\x01\0\0\0a\0\0\0\0");
        assert_eq!(join(OutFrame::Len32, true, &[b"a"]), b"\x03\0\0\x000\ta");
    }

    #[test]
    fn large_records_pass_through_in_order() {
        let large = vec![7; GATHER + 1];
        let mut expected = b"a\n".to_vec();
        expected.extend_from_slice(&large);
        expected.extend_from_slice(b"\nb\n");
        assert_eq!(join(OutFrame::Lines, false, &[b"a", &large, b"b"]), expected);
    }
}
