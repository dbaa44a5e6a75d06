//! A child under ptrace: led step by step, or from system call to system call, and killed wherever the test wants.

use crate::common::Child;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};
use std::fmt::Display;
use std::path::Path;

/// Where a traced child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// One instruction further.
    Step,
    /// About to enter a system call, or just out of it.
    Call,
    /// At a [`mark`].
    Mark,
}

/// Stops the traced child, for its tracer to take over or to let go.
pub(crate) fn mark() {
    crate::raw::breakpoint();
}

/// In the child: asks to be traced by whoever started it. The thread's id is what the tracer has to know.
pub(crate) fn be_traced() {
    ptrace::traceme().expect("ptrace is allowed here");
}

pub(crate) fn thread_id() -> Pid {
    gettid()
}

/// A child that stands still unless told to move. Killed when dropped.
pub(crate) struct Traced {
    child: Option<Child>,
    thread: Pid,
    /// Whether the last stop at a call was its entry.
    inside: bool,
}

impl Traced {
    /// Starts a role that says its thread's id, asks to be traced and comes to its first mark.
    pub(crate) fn start(role: &str, bus: &Path, arguments: &[&dyn Display]) -> Self {
        let mut child = Child::start(role, bus, arguments);
        let thread = Pid::from_raw(child.expect("thread").parse().unwrap());
        let mut traced = Self { child: Some(child), thread, inside: false };
        assert_eq!(traced.wait(), Stop::Mark);
        ptrace::setoptions(thread, Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD).unwrap();
        traced
    }

    fn wait(&mut self) -> Stop {
        match waitpid(self.thread, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceSyscall(_) => {
                self.inside = !self.inside;
                Stop::Call
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                // A breakpoint's trap comes from the kernel, a step's is a trace trap.
                const SI_KERNEL: i32 = 0x80;
                let info = ptrace::getsiginfo(self.thread).unwrap();
                if info.si_code == SI_KERNEL { Stop::Mark } else { Stop::Step }
            }
            other => panic!("the child was led nowhere: {other:?}"),
        }
    }

    /// One instruction on.
    pub(crate) fn step(&mut self) -> Stop {
        ptrace::step(self.thread, None).unwrap();
        self.wait()
    }

    /// On to the next entry to or return from a system call, or to the next mark.
    pub(crate) fn next_call(&mut self) -> Stop {
        ptrace::syscall(self.thread, None).unwrap();
        self.wait()
    }

    /// Whether it stands at the entry of a system call (else behind it).
    pub(crate) fn entering(&self) -> bool {
        self.inside
    }

    fn registers(&self) -> libc::user_regs_struct {
        ptrace::getregs(self.thread).unwrap()
    }

    /// After a step: whether it was a system call, which leaves its return address in a register.
    pub(crate) fn stepped_a_call(&self) -> bool {
        let registers = self.registers();
        registers.rcx == registers.rip
    }

    /// At an entry: the call's number and its arguments.
    pub(crate) fn call(&self) -> (i64, [u64; 6]) {
        let r = self.registers();
        (r.orig_rax as i64, [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9])
    }

    /// At an entry: the call does not take place, and fails with `errno`.
    pub(crate) fn fail_call(&mut self, errno: i32) {
        let mut registers = self.registers();
        registers.orig_rax = u64::MAX;
        ptrace::setregs(self.thread, registers).unwrap();
        assert_eq!(self.next_call(), Stop::Call);
        let mut registers = self.registers();
        registers.rax = -i64::from(errno) as u64;
        ptrace::setregs(self.thread, registers).unwrap();
    }

    /// Lets it run on its own, to its end.
    pub(crate) fn let_go(mut self) -> Child {
        ptrace::detach(self.thread, None).unwrap();
        self.child.take().expect("taken only here")
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let Some(child) = &self.child else { return };
        // Not waited for yet, so its pid is its own. A traced thread other than the first has to be waited for before its process can be.
        let process = Pid::from_raw(child.pid() as i32);
        let killed = kill(process, Signal::SIGKILL);
        if self.thread != process {
            let ended = waitpid(self.thread, Some(WaitPidFlag::__WALL));
            assert!(std::thread::panicking() || killed.is_ok() && ended.is_ok(), "{killed:?}, {ended:?}");
        }
    }
}
