//! A reader as a `futures` stream, on tokio.

use crate::error::{Error, Result};
use crate::reader::Reader;
use crate::report::Gap;
use crate::stream::{Closed, Next, Record};
use futures_core::Stream;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A record that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedRecord {
    /// Its number.
    pub sequence: u64,
    /// The tag it was published with.
    pub tag: u32,
    /// The time it was published at, on a stamped bus.
    pub stamp: Option<SystemTime>,
    /// The message.
    pub payload: Vec<u8>,
}

impl From<Record<'_>> for OwnedRecord {
    fn from(record: Record<'_>) -> Self {
        Self {
            sequence: record.sequence(),
            tag: record.tag(),
            stamp: record.stamp(),
            payload: record.payload().to_vec(),
        }
    }
}

/// [`Next`] with a record that owns its payload, and without "nothing yet".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// A record.
    Record(OwnedRecord),
    /// These sequences were missed.
    Gap(Gap),
    /// The reader was evicted. The last item: take the reader back, rejoin, and make another stream of it.
    Evicted(Gap),
    /// The writer closed the stream. The last item.
    Closed(Closed),
    /// No writer is alive; the next one's records follow.
    Absent,
    /// The bus was created anew or removed. The last item.
    Replaced,
    /// The path leads elsewhere. The last item.
    Orphaned,
}

/// A reader's records and everything else it is told, as they come.
///
/// Asking for an item commits the one before, as with [`Reader::try_next`], unless the reader commits by hand. Needs a tokio runtime with I/O;
/// starts the thread that serves [`Reader::event_fd`].
///
/// ```no_run
/// use lapwing::{Item, Reader, ReaderStream};
/// # async fn example() -> lapwing::Result<()> {
/// let mut stream = ReaderStream::new(Reader::open("/dev/shm/orders")?)?;
/// while let Some(item) = stream.next().await {
///     if let Item::Record(record) = item? {
///         println!("{}: {:?}", record.sequence, record.payload);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct ReaderStream {
    reader: Reader,
    ready: AsyncFd<OwnedFd>,
    ended: bool,
}

impl ReaderStream {
    /// Wraps a reader.
    ///
    /// # Errors
    /// [`Error::WrongState`] outside a tokio runtime; [`Error::Io`] without a descriptor or a thread to be had; [`Error::Forked`].
    ///
    /// # Panics
    /// In a tokio runtime that was built without I/O.
    pub fn new(mut reader: Reader) -> Result<Self> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::WrongState { what: "make a stream of a reader", why: "there is no tokio runtime here" });
        }
        let failed = |source| Error::io("watch", std::path::Path::new("an event descriptor"), source);
        let descriptor = reader.event_fd()?.try_clone_to_owned().map_err(failed)?;
        // An `OwnedFd` is all that the unsafe replacement asks for; this one is safe to call.
        #[allow(deprecated)]
        let ready = AsyncFd::with_interest(descriptor, Interest::READABLE).map_err(failed)?;
        Ok(Self { reader, ready, ended: false })
    }

    /// Borrows the reader, to commit, rejoin or look at its books.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// Gives the reader back.
    pub fn into_reader(self) -> Reader {
        self.reader
    }

    /// Returns the next item; `None` after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Item>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for ReaderStream {
    type Item = Result<Item>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            let item = match this.reader.try_next() {
                // This look has made the descriptor unreadable; an edge since then is kept by the runtime.
                Ok(Next::Empty) => {
                    ready!(this.ready.poll_read_ready(context))
                        .map_err(|source| Error::io("wait for", std::path::Path::new("an event descriptor"), source))?
                        .clear_ready();
                    continue;
                }
                Ok(Next::Record(record)) => Item::Record(record.into()),
                Ok(Next::Gap(gap)) => Item::Gap(gap),
                Ok(Next::Evicted(gap)) => Item::Evicted(gap),
                Ok(Next::Closed(closed)) => Item::Closed(closed),
                Ok(Next::Absent) => Item::Absent,
                Ok(Next::Replaced) => Item::Replaced,
                Ok(Next::Orphaned) => Item::Orphaned,
                Err(error) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            this.ended = matches!(item, Item::Evicted(_) | Item::Closed(_) | Item::Replaced | Item::Orphaned);
            return Poll::Ready(Some(Ok(item)));
        }
    }
}
