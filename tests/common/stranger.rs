//! Another user: one who owns nothing and may do nothing.

/// A user id that nobody has.
const STRANGER: u32 = 54_321;

/// Becomes another user, without groups and capabilities.
pub(crate) fn become_a_stranger() {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
    setgroups(&[]).unwrap();
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for set in ["CapEff:", "CapPrm:", "CapAmb:"] {
        let capabilities = status.lines().find_map(|line| line.strip_prefix(set)).unwrap().trim();
        assert_eq!(u64::from_str_radix(capabilities, 16), Ok(0), "{set}");
    }
    // After the change the kernel would not let the process look at itself without this.
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }, 0);
    // The change of user took this away.
    // SAFETY: as above.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }, 0);
}

/// Says loudly that a test was not made; true if it can be.
pub(crate) fn can_become_another(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {test} needs root, to run its children as another user");
    }
    root
}
