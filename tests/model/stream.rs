//! What the layout says about the stream, in plain arithmetic: where each record lies, what is intact, where a start leads.

/// A place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
}

/// A published record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) tag: u32,
    pub(crate) payload: Vec<u8>,
    /// Where the stream stood before it: padding lies there if `start` is higher.
    pub(crate) from: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Everything published so far, and the limit that the writer last took.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) capacity: u64,
    pub(crate) stripe: u64,
    pub(crate) stamped: bool,
    pub(crate) records: Vec<Record>,
    pub(crate) limit: u64,
}

impl Stream {
    pub(crate) fn new(capacity: u64, stamped: bool) -> Self {
        let stripe = capacity / (capacity >> 16).clamp(8, 4096);
        Self { capacity, stripe, stamped, records: Vec::new(), limit: 0 }
    }

    fn header(&self) -> u64 {
        if self.stamped { 24 } else { 16 }
    }

    pub(crate) fn max_record(&self) -> usize {
        (self.capacity / 4 - self.header()) as usize
    }

    pub(crate) fn size(&self, length: usize) -> u64 {
        // No record takes 48 bytes: it would lie in two cache lines every other time.
        match (length as u64 + self.header()).next_multiple_of(16) {
            48 => 64,
            size => size,
        }
    }

    /// Start and end of a record of this length that follows on `from`.
    pub(crate) fn lay(&self, from: u64, length: usize) -> (u64, u64) {
        let (size, to_end) = (self.size(length), self.capacity - from % self.capacity);
        let start = if size <= to_end { from } else { from + to_end };
        (start, start + size)
    }

    pub(crate) fn head(&self) -> Place {
        Place { position: self.records.last().map_or(0, |record| record.end), sequence: self.records.len() as u64 }
    }

    /// Lowest position whose bytes are intact.
    pub(crate) fn floor(&self) -> u64 {
        self.limit.saturating_sub(self.capacity)
    }

    /// What the index says of a boundary that is not above head: the first record (or padding) that begins there or later.
    fn at_boundary(&self, boundary: u64) -> Place {
        let first = self.records.partition_point(|record| record.start < boundary);
        match self.records.get(first) {
            None => self.head(),
            Some(record) => Place {
                position: if record.from >= boundary { record.from } else { record.start },
                sequence: first as u64,
            },
        }
    }

    /// The lowest place that the index knows at or above a position.
    fn lowest(&self, position: u64) -> Place {
        if position == 0 {
            return Place { position: 0, sequence: 0 };
        }
        let boundary = position.next_multiple_of(self.stripe);
        if boundary > self.head().position { self.head() } else { self.at_boundary(boundary) }
    }

    pub(crate) fn oldest(&self) -> Place {
        self.lowest(self.floor())
    }

    /// Where those go on whom the writer does not wait for: an eighth of the ring above the edge.
    pub(crate) fn clear(&self) -> Place {
        self.lowest((self.floor() + self.capacity / 8).min(self.head().position))
    }

    /// The place of a sequence, or the oldest.
    pub(crate) fn place_of(&self, sequence: u64) -> Place {
        let oldest = self.oldest();
        if sequence < oldest.sequence {
            return oldest;
        }
        match self.records.get(sequence as usize) {
            Some(record) => Place { position: record.start, sequence },
            None => self.head(),
        }
    }

    /// The first record of a time before all of them.
    pub(crate) fn since_ever(&self) -> Place {
        let oldest = self.oldest();
        match self.records.get(oldest.sequence as usize) {
            // Only who looks at the stamps walks over padding.
            Some(record) if self.stamped => Place { position: record.start, ..oldest },
            _ => oldest,
        }
    }

    /// The first record of a time after all of them; without stamps the last that the index knows to be before it.
    pub(crate) fn since_never(&self) -> Place {
        let head = self.head();
        if self.stamped {
            return head;
        }
        let last = head.position / self.stripe * self.stripe;
        if last < self.floor() || last == 0 { self.oldest() } else { self.at_boundary(last) }
    }
}
