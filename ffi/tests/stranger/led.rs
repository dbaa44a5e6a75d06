//! A stranger under ptrace: led from instruction to instruction, or from system call to system call, while the test looks at the table.

use crate::Stranger;
use bus::layout;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// More than any walk here takes: the longest is of some 3000 instructions.
const MOST: u32 = 20_000;

/// Stands still unless told to move. Killed when the test ends before it was let go.
pub(crate) struct Led {
    stranger: Stranger,
    pid: Pid,
}

impl Led {
    /// Takes hold of a stranger that waits for a line, and says the line.
    pub(crate) fn hold(stranger: Stranger) -> Self {
        let pid = Pid::from_raw(stranger.child.id() as i32);
        ptrace::seize(pid, Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD).expect("a child may be traced");
        ptrace::interrupt(pid).expect("it is traced");
        let mut led = Self { stranger, pid };
        led.wait();
        led.stranger.go_on();
        led
    }

    fn wait(&self) {
        match waitpid(self.pid, None).expect("it is a child") {
            WaitStatus::PtraceEvent(..) | WaitStatus::PtraceSyscall(_) | WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            other => panic!("it was led nowhere: {other:?}"),
        }
    }

    /// Leads it to just behind the instruction that makes this hold.
    pub(crate) fn step_until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..MOST {
            if holds() {
                return;
            }
            ptrace::step(self.pid, None).expect("it stands still");
            self.wait();
        }
        panic!("it never came to this: {what}");
    }

    /// Leads it to the entry or the end of its next system call, whichever comes first; returns the call's number and arguments.
    fn next_call(&self) -> Vec<u64> {
        ptrace::syscall(self.pid, None).expect("it stands still");
        self.wait();
        // Number, six arguments, stack and instruction pointer; the number is the only one in decimal.
        let line =
            read_to_string(format!("/proc/{}/syscall", self.pid)).expect("what a child that was stopped is about");
        let words = line.split_whitespace().take(7);
        words
            .map(|word| {
                u64::from_str_radix(word.trim_start_matches("0x"), if word.starts_with("0x") { 16 } else { 10 })
            })
            .collect::<Result<_, _>>()
            .expect("a call")
    }

    /// Leads it to the entry of the first of these system calls; returns its number and its arguments.
    pub(crate) fn enter_one_of(&self, numbers: &[i64]) -> Vec<u64> {
        for _ in 0..MOST {
            let call = self.next_call();
            if numbers.contains(&(call[0] as i64)) {
                return call;
            }
        }
        panic!("it came to none of the system calls {numbers:?}");
    }

    /// From the entry of a system call to its end.
    pub(crate) fn finish_call(&self) {
        self.next_call();
    }

    /// Lets it run on its own.
    pub(crate) fn let_go(self) -> Stranger {
        ptrace::detach(self.pid, None).expect("it stands still");
        self.stranger
    }
}

/// The words of a bus's files, as anybody sees them who may write both. What is stored is one access only for those who stand still.
pub(crate) struct Words {
    ring: File,
    table: File,
}

impl Words {
    pub(crate) fn of(bus: &Path) -> Self {
        let open = |path: &Path| File::options().read(true).write(true).open(path).expect("a file of the bus");
        Self { ring: open(bus), table: open(format!("{}.readers", bus.display()).as_ref()) }
    }

    /// A word of the table's header.
    pub(crate) fn table(&self, name: &str) -> u64 {
        load(&self.table, byte_of(layout::TABLE_WORDS, name))
    }

    /// A word of the first slot, which is the stranger's.
    pub(crate) fn slot(&self, name: &str) -> u64 {
        load(&self.table, layout::HEADER + byte_of(layout::SLOT_WORDS, name))
    }

    pub(crate) fn store_table(&self, name: &str, value: u64) {
        store(&self.table, byte_of(layout::TABLE_WORDS, name), value);
    }

    pub(crate) fn store_ring(&self, name: &str, value: u64) {
        store(&self.ring, byte_of(layout::RING_WORDS, name), value);
    }
}

fn byte_of(words: &[(&str, usize)], name: &str) -> u64 {
    8 * words.iter().find(|word| word.0 == name).unwrap_or_else(|| panic!("no word is called {name}")).1 as u64
}

fn load(file: &File, byte: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, byte).expect("a word");
    u64::from_ne_bytes(bytes)
}

fn store(file: &File, byte: u64, value: u64) {
    file.write_all_at(&value.to_ne_bytes(), byte).expect("a word");
}
