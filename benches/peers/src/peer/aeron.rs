//! Aeron IPC through its C client, with the media driver as a process of its own.
//!
//! Exclusive publications are the fastest ones for a single writer; the driver's threads are one (`SHARED`), on the readers' core, since the
//! sender's is busy all the time; the MTU is raised so that records up to 16 KiB need no fragments
//! (<https://github.com/aeron-io/aeron/wiki/Best-Practices-Guide>, <https://github.com/aeron-io/aeron/wiki/Configuration-Options>).

use super::{Driver, Error, Facts, Receiver, Sender};
use crate::job::{At, Idle, Job, Measure};
use crate::record;
use crate::shared::Control;
use rusteron_client::{
    AERON_IPC_STREAM, Aeron, AeronBufferClaim, AeronContext, AeronExclusivePublication, AeronSubscription, Handlers,
};
use rusteron_media_driver::bindings::aeron_threading_mode_enum;
use rusteron_media_driver::{AeronDriver, AeronDriverContext};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Largest MTU that Aeron takes.
const MTU: usize = 65_504;
const FRAGMENTS: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);

pub struct AeronIpc<const CLAIM: bool>;

fn name_of(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without zeros")
}

impl<const CLAIM: bool> Driver for AeronIpc<CLAIM> {
    const FACTS: Facts = Facts {
        name: if CLAIM { "aeron-claim" } else { "aeron" },
        max_size: if CLAIM { 16 << 10 } else { 64 << 10 },
        stream_bytes: 4 << 20,
        max_slots: usize::MAX,
        stream_idle: Idle::Spin,
        more: if CLAIM { &[] } else { &[Measure::Rate, Measure::Memory] },
        setting: if CLAIM {
            "exclusive publication, try_claim; driver shared-threaded on the readers' core; MTU 65504"
        } else {
            "exclusive publication, offer; driver shared-threaded on the readers' core; MTU 65504"
        },
        advice: "https://github.com/aeron-io/aeron/wiki/Best-Practices-Guide",
        helper: true,
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Publication<CLAIM>;
    type Receiver<const W: usize> = Subscription<W>;

    fn sender<const W: usize>(at: &At) -> Result<Publication<CLAIM>, Error> {
        let aeron = connect(at)?;
        let publication = aeron
            .async_add_exclusive_publication(AERON_IPC_STREAM, stream(at))
            .and_then(|adding| adding.poll_blocking(PATIENCE))
            .map_err(|error| error.to_string())?;
        Ok(Publication { claim: AeronBufferClaim::new_zeroed_on_stack(), publication, _aeron: aeron })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<Subscription<W>, Error> {
        let aeron = connect(at)?;
        let subscription = aeron
            .async_add_subscription(AERON_IPC_STREAM, stream(at), Handlers::NONE, Handlers::NONE)
            .and_then(|adding| adding.poll_blocking(PATIENCE))
            .map_err(|error| error.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        while !subscription.is_connected() {
            if Instant::now() > deadline {
                return Err("the subscription was not connected".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let limit = if at.is_stream() { FRAGMENTS } else { 1 };
        Ok(Subscription { parts: Vec::with_capacity(W * 8), limit, subscription, _aeron: aeron })
    }

    fn helper(job: &Job, control: &Control) -> Result<(), Error> {
        crate::machine::pin(job.cores[1])?;
        let context = AeronDriverContext::new()?;
        context.set_dir(&name_of(&job.dir.join("aeron")))?;
        context.set_dir_delete_on_start(true)?;
        context.set_threading_mode(aeron_threading_mode_enum::AERON_THREADING_MODE_SHARED)?;
        context.set_ipc_mtu_length(MTU)?;
        // The publisher may be half a term ahead of the slowest reader.
        let term = (2 * job.slots * (job.size + 32).next_multiple_of(32)).next_power_of_two().clamp(1 << 20, 1 << 30);
        context.set_ipc_term_buffer_length(term)?;
        context.set_term_buffer_sparse_file(false)?;
        let (_stop, driver) = AeronDriver::launch_embedded(context, false);
        // Its end is the end of this process.
        while !driver.is_finished() {
            control.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the media driver ended".into())
    }
}

fn stream(at: &At) -> i32 {
    1000 + i32::from(at.channel.as_bytes()[0])
}

/// Connects to the driver, which may have to start first.
fn connect(at: &At) -> Result<Aeron, Error> {
    let dir = at.job.dir.join("aeron");
    let deadline = Instant::now() + PATIENCE;
    while !dir.join("cnc.dat").exists() {
        at.control.check()?;
        if Instant::now() > deadline {
            return Err("the media driver did not start".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let context = AeronContext::new()?;
    context.set_dir(&name_of(&dir))?;
    let aeron = Aeron::new(&context)?;
    aeron.start()?;
    Ok(aeron)
}

pub struct Publication<const CLAIM: bool> {
    claim: AeronBufferClaim,
    publication: AeronExclusivePublication,
    _aeron: Aeron,
}

impl<const CLAIM: bool> Publication<CLAIM> {
    #[inline(always)]
    fn once(&self, bytes: &[u8]) -> bool {
        let outcome = if CLAIM {
            self.publication.try_claim(bytes.len(), &self.claim).map(|_| {
                self.claim.data().copy_from_slice(bytes);
                self.claim.commit().expect("commit");
            })
        } else {
            self.publication.offer(bytes).map(|_| ())
        };
        match outcome {
            Ok(()) => true,
            Err(error) if error.is_retryable() => false,
            Err(error) => panic!("publication: {error}"),
        }
    }
}

impl<const W: usize, const CLAIM: bool> Sender<W> for Publication<CLAIM> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        while !self.once(record::bytes(record)) {
            std::hint::spin_loop();
        }
    }

    fn try_send(&mut self, record: &[u64; W]) -> bool {
        self.once(record::bytes(record))
    }

    fn connect(&mut self, _readers: usize) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while !self.publication.is_connected() {
            if Instant::now() > deadline {
                return Err("the publication was not connected".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

pub struct Subscription<const W: usize> {
    /// Fragments of a record larger than the MTU.
    parts: Vec<u8>,
    limit: usize,
    subscription: AeronSubscription,
    _aeron: Aeron,
}

impl<const W: usize> Receiver<W> for Subscription<W> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let (parts, mut count) = (&mut self.parts, 0);
        self.subscription
            .poll_fn(
                |bytes, _header| {
                    if bytes.len() == W * 8 {
                        record::from_bytes(bytes, sink);
                        count += 1;
                    } else {
                        parts.extend_from_slice(bytes);
                        if parts.len() == W * 8 {
                            record::from_bytes(parts, sink);
                            parts.clear();
                            count += 1;
                        }
                    }
                },
                self.limit,
            )
            .expect("poll");
        count
    }
}
