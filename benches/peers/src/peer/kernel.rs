//! The kernel's own ways: a pipe for each reader, and a Unix SEQPACKET socket for each reader.
//!
//! Both ends are non-blocking and polled, which is far faster than sleeping; a pipe's reader takes what is there in one call, up to 64 KiB
//! (<https://man7.org/linux/man-pages/man7/pipe.7.html>, <https://man7.org/linux/man-pages/man7/unix.7.html>).

use super::{Driver, Error, Facts, Receiver, Sender};
use crate::job::{At, Measure};
use crate::record;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a pipe is asked to hold, and a socket to send ahead.
const BUFFER: i32 = 1 << 20;
const TAKEN: usize = 64 << 10;
const MORE: &[Measure] = &[Measure::Rate, Measure::Wake, Measure::Idle];

fn check(result: isize) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

fn descriptor(result: i32) -> io::Result<OwnedFd> {
    check(result as isize)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without zeros")
}

/// Writes all of it; waits where there is no room.
fn write_all(to: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: a valid slice.
        match check(unsafe { libc::write(to, bytes.as_ptr().cast(), bytes.len()) }) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => panic!("write: {error}"),
        }
    }
}

fn read(from: RawFd, into: &mut [u8]) -> usize {
    // SAFETY: a valid slice.
    match check(unsafe { libc::read(from, into.as_mut_ptr().cast(), into.len()) }) {
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => panic!("read: {error}"),
    }
}

fn sleep_until_readable(from: RawFd) {
    let mut poll = libc::pollfd { fd: from, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&mut poll, 1, 200) };
}

pub struct Pipe;

impl Driver for Pipe {
    const FACTS: Facts = Facts {
        name: "pipe",
        max_readers: 8,
        more: MORE,
        setting: "a pipe of 1 MiB for each reader, non-blocking and polled; one write a record, reads of up to 64 KiB",
        advice: "https://man7.org/linux/man-pages/man7/pipe.7.html",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Writers;
    type Receiver<const W: usize> = PipeReader;

    fn sender<const W: usize>(at: &At) -> Result<Writers, Error> {
        let mut all = Vec::new();
        for reader in 0..at.readers {
            let path = c_path(&at.path().with_extension(reader.to_string()));
            // SAFETY: valid strings. Opened for both, so that it does not wait for a reader.
            unsafe {
                check(libc::mkfifo(path.as_ptr(), 0o600) as isize)?;
                let pipe = descriptor(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC))?;
                check(libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, BUFFER) as isize)?;
                all.push(pipe);
            }
        }
        Ok(Writers { all, listener: None })
    }

    fn receiver<const W: usize>(at: &At, index: usize) -> Result<PipeReader, Error> {
        let path = c_path(&at.path().with_extension(index.to_string()));
        // SAFETY: a valid string.
        let pipe = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC) };
        // Whole records at the front of the buffer, and room for one more.
        Ok(PipeReader { pipe: descriptor(pipe)?, buffer: vec![0; TAKEN.max(W * 8)], filled: 0 })
    }
}

/// The sender's ends.
pub struct Writers {
    all: Vec<OwnedFd>,
    listener: Option<OwnedFd>,
}

impl<const W: usize> Sender<W> for Writers {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        for to in &self.all {
            write_all(to.as_raw_fd(), record::bytes(record));
        }
    }

    fn connect(&mut self, readers: usize) -> Result<(), Error> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.all.len() < readers {
            // SAFETY: the address is not asked for.
            let socket = unsafe {
                libc::accept4(
                    listener.as_raw_fd(),
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                )
            };
            match descriptor(socket) {
                Ok(socket) => {
                    buffer_size(&socket)?;
                    self.all.push(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

pub struct PipeReader {
    pipe: OwnedFd,
    buffer: Vec<u8>,
    /// Bytes of a record that has not come whole.
    filled: usize,
}

impl<const W: usize> Receiver<W> for PipeReader {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        self.filled += read(self.pipe.as_raw_fd(), &mut self.buffer[self.filled..]);
        let whole = self.filled / (W * 8);
        for record in self.buffer[..whole * W * 8].chunks_exact(W * 8) {
            record::from_bytes(record, sink);
        }
        self.buffer.copy_within(whole * W * 8..self.filled, 0);
        self.filled -= whole * W * 8;
        whole
    }

    fn receive_parked(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        sleep_until_readable(self.pipe.as_raw_fd());
        self.receive(sink)
    }
}

pub struct Socket;

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    descriptor(unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    })
}

fn buffer_size(socket: &OwnedFd) -> io::Result<()> {
    let size = BUFFER;
    for option in [libc::SO_SNDBUF, libc::SO_SNDBUFFORCE] {
        // SAFETY: a valid integer and its size. Only root may force it: the other one has been taken by then.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const size).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
    }
    Ok(())
}

fn with_address<T>(path: &Path, call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> T) -> io::Result<T> {
    // SAFETY: zero is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::other("the path is too long for a socket"));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(call((&raw const address).cast(), size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

impl Driver for Socket {
    const FACTS: Facts = Facts {
        name: "seqpacket",
        max_readers: 8,
        more: MORE,
        setting: "a Unix SEQPACKET socket for each reader, 1 MiB to send ahead, non-blocking and polled",
        advice: "https://man7.org/linux/man-pages/man7/unix.7.html",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Writers;
    type Receiver<const W: usize> = SocketReader;

    fn sender<const W: usize>(at: &At) -> Result<Writers, Error> {
        let listener = socket()?;
        // SAFETY: a valid address of the size given.
        check(with_address(&at.path(), |address, size| unsafe { libc::bind(listener.as_raw_fd(), address, size) })?
            as isize)?;
        // SAFETY: takes no pointers.
        check(unsafe { libc::listen(listener.as_raw_fd(), at.readers as i32) } as isize)?;
        Ok(Writers { all: Vec::new(), listener: Some(listener) })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<SocketReader, Error> {
        let socket = socket()?;
        // SAFETY: a valid address of the size given.
        check(with_address(&at.path(), |address, size| unsafe { libc::connect(socket.as_raw_fd(), address, size) })?
            as isize)?;
        Ok(SocketReader { socket, buffer: vec![0; W].into_boxed_slice() })
    }
}

pub struct SocketReader {
    socket: OwnedFd,
    buffer: Box<[u64]>,
}

impl<const W: usize> Receiver<W> for SocketReader {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        // SAFETY: words as bytes; the slice covers exactly the record.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.buffer.as_mut_ptr().cast::<u8>(), W * 8) };
        match read(self.socket.as_raw_fd(), bytes) {
            0 => 0,
            count => {
                record::from_bytes(&bytes[..count], sink);
                1
            }
        }
    }

    fn receive_parked(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        sleep_until_readable(self.socket.as_raw_fd());
        self.receive(sink)
    }
}
