//! A child under ptrace: led step by step, or from system call to system call, and killed wherever the test wants.

use crate::common::Child;
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
    // SAFETY: a breakpoint changes nothing; only ever executed under a tracer, which takes the trap.
    unsafe { std::arch::asm!("int3") };
}

/// In the child: asks to be traced by whoever started it. The thread's id is what the tracer has to know.
pub(crate) fn be_traced() {
    // SAFETY: both calls touch no memory of ours.
    let ok = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    assert_eq!(ok, 0, "ptrace is forbidden here");
}

pub(crate) fn thread_id() -> i32 {
    // SAFETY: touches no memory.
    unsafe { libc::gettid() }
}

/// A child that stands still unless told to move. Killed when dropped.
pub(crate) struct Traced {
    child: Option<Child>,
    thread: i32,
    /// Whether the last stop at a call was its entry.
    inside: bool,
}

impl Traced {
    /// Starts a role that says its thread's id, asks to be traced and comes to its first mark.
    pub(crate) fn start(role: &str, bus: &Path, arguments: &[&dyn Display]) -> Self {
        let mut child = Child::start(role, bus, arguments);
        let thread = child.expect("thread").parse().unwrap();
        let mut traced = Self { child: Some(child), thread, inside: false };
        assert_eq!(traced.wait(), Stop::Mark);
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        traced.ask(libc::PTRACE_SETOPTIONS, options as usize);
        traced
    }

    fn ask(&self, request: libc::c_uint, data: usize) {
        // SAFETY: the requests made here pass numbers, or a pointer to a live local of the type the request fills or reads.
        let ok = unsafe { libc::ptrace(request, self.thread, 0usize, data) };
        assert_eq!(ok, 0, "ptrace request {request}: {}", std::io::Error::last_os_error());
    }

    fn wait(&mut self) -> Stop {
        let mut status = 0;
        // SAFETY: writes one local.
        let waited = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.thread);
        assert!(libc::WIFSTOPPED(status), "the child ended by itself: {status:#x}");
        let signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP | 0x80 {
            self.inside = !self.inside;
            return Stop::Call;
        }
        assert_eq!(signal, libc::SIGTRAP, "the child got signal {signal}");
        // SAFETY: all zeros are a valid siginfo_t; the request fills it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        self.ask(libc::PTRACE_GETSIGINFO, (&raw mut info) as usize);
        // A breakpoint's trap comes from the kernel, a step's is a trace trap.
        const SI_KERNEL: i32 = 0x80;
        if info.si_code == SI_KERNEL { Stop::Mark } else { Stop::Step }
    }

    /// One instruction on.
    pub(crate) fn step(&mut self) -> Stop {
        self.ask(libc::PTRACE_SINGLESTEP, 0);
        self.wait()
    }

    /// On to the next entry to or return from a system call, or to the next mark.
    pub(crate) fn next_call(&mut self) -> Stop {
        self.ask(libc::PTRACE_SYSCALL, 0);
        self.wait()
    }

    /// Whether it stands at the entry of a system call (else behind it).
    pub(crate) fn entering(&self) -> bool {
        self.inside
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: all zeros are valid registers; the request fills them.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        self.ask(libc::PTRACE_GETREGS, (&raw mut registers) as usize);
        registers
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
        self.ask(libc::PTRACE_SETREGS, (&raw const registers) as usize);
        assert_eq!(self.next_call(), Stop::Call);
        let mut registers = self.registers();
        registers.rax = -i64::from(errno) as u64;
        self.ask(libc::PTRACE_SETREGS, (&raw const registers) as usize);
    }

    /// Lets it run on its own, to its end.
    pub(crate) fn let_go(mut self) -> Child {
        self.ask(libc::PTRACE_DETACH, 0);
        self.child.take().expect("taken only here")
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let Some(child) = &self.child else { return };
        let mut status = 0;
        // SAFETY: the child has not been waited for, so its pid is its own. A traced thread other than the first has to be waited
        // for before its process can be.
        unsafe {
            libc::kill(child.pid() as i32, libc::SIGKILL);
            if self.thread != child.pid() as i32 {
                libc::waitpid(self.thread, &raw mut status, libc::__WALL);
            }
        }
    }
}
