//! The machine: memory file system, fences, pages, processors, limits, namespaces, and what dead processes left in `/dev/shm`.

use super::Finding;
use crate::units::{bytes, plural};
use lapwing::{Bus, WriterState};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
use std::fs;
use std::path::{Path, PathBuf};

const SHM: &str = "/dev/shm";
/// A default bus and its table, with room for a replacement beside it.
const ROOM: u64 = 16 << 20;
/// What container runtimes give unless told otherwise.
const CONTAINER_DEFAULT: u64 = 64 << 20;
/// Most entries of `/dev/shm` that are looked at.
const MOST_ENTRIES: usize = 4096;

/// `capacity` is that of the bus in question, if there is one.
pub(super) fn check(capacity: Option<u64>) -> Vec<Finding> {
    let root = Root("/".into());
    let mut findings = vec![
        shared_memory(Path::new(SHM)),
        fences(),
        huge_pages(&root),
        governor(&root),
        isolated(&root),
        locked_memory(&root, capacity),
        namespaces(&root),
    ];
    findings.extend(leftovers(Path::new(SHM)));
    findings
}

/// Where `/proc` and `/sys` are: elsewhere in a test.
struct Root(PathBuf);

impl Root {
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok().map(|text| text.trim().to_owned())
    }
}

fn shared_memory(place: &Path) -> Finding {
    const CHECK: &str = "shared_memory";
    let shown = place.display();
    let elsewhere = "mount a tmpfs there (mount -t tmpfs tmpfs /dev/shm), or put buses in another memory file system";
    let stat = match statfs(place) {
        Ok(stat) => stat,
        Err(errno) => return Finding::warning(CHECK, format!("{shown}: {}", errno.desc()), elsewhere),
    };
    if stat.filesystem_type() != TMPFS_MAGIC {
        return Finding::warning(
            CHECK,
            format!("{shown} is no memory file system: the disk sees each write"),
            elsewhere,
        );
    }
    let unit = stat.block_size().unsigned_abs();
    let (size, free) = (stat.blocks().saturating_mul(unit), stat.blocks_available().saturating_mul(unit));
    let found = format!("{shown} has {}, {} free", bytes(size), bytes(free));
    // Without a bound of its own, it says zero.
    if stat.blocks() == 0 {
        Finding::ok(CHECK, format!("{shown} has no bound of its own"))
    } else if free < ROOM {
        let advice = "remove what is not needed (`lapwing ls` shows buses), or enlarge it: mount -o remount,size=1G /dev/shm, docker run --shm-size=1g";
        Finding::warning(CHECK, found, advice)
    } else if size <= CONTAINER_DEFAULT {
        Finding::note(
            CHECK,
            found,
            "a container's default; for larger buses: docker run --shm-size=1g, or a volume in memory",
        )
    } else {
        Finding::ok(CHECK, found)
    }
}

fn fences() -> Finding {
    const CHECK: &str = "membarrier";
    let known = membarrier_query();
    let [register, fence] = [MembarrierCommand::RegisterGlobalExpedited, MembarrierCommand::GlobalExpedited];
    // Asking is not enough: a sandbox may answer and then refuse.
    let works = known.contains_command(register) && known.contains_command(fence) && membarrier(register).is_ok();
    if works {
        Finding::ok(CHECK, "works: publishing needs no fence")
    } else {
        Finding::note(
            CHECK,
            "not available: a writer has to execute a fence with each record",
            "allow the system call membarrier in the sandbox or container, or use a kernel from 4.16 on",
        )
    }
}

fn huge_pages(root: &Root) -> Finding {
    const CHECK: &str = "huge_pages";
    let Some(setting) = root.read("sys/kernel/mm/transparent_hugepage/shmem_enabled") else {
        return Finding::ok(CHECK, "this kernel has none for memory file systems");
    };
    let chosen = setting.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(word, _)| word);
    let mounted = root.read("proc/mounts").is_some_and(|mounts| {
        mounts.lines().any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some(SHM)
                && words
                    .nth(1)
                    .is_some_and(|options| options.split(',').any(|o| o.starts_with("huge=") && o != "huge=never"))
        })
    });
    if matches!(chosen, "always" | "within_size" | "force") || mounted && chosen != "deny" {
        Finding::ok(CHECK, "/dev/shm uses them")
    } else {
        Finding::note(
            CHECK,
            "/dev/shm does not use them; small rings do not need them",
            "for rings of many MiB: mount -o remount,huge=within_size /dev/shm",
        )
    }
}

fn governor(root: &Root) -> Finding {
    const CHECK: &str = "cpu_governor";
    let found = governors(&root.0);
    match found.as_slice() {
        [] => Finding::ok(CHECK, "the frequency is not this system's to set"),
        [only] if only == "performance" => Finding::ok(CHECK, "performance"),
        several => {
            Finding::note(CHECK, several.join(", "), "for steady latency: cpupower frequency-set -g performance")
        }
    }
}

/// The frequency governors in use, each once.
pub(crate) fn governors(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join("sys/devices/system/cpu")) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("cpufreq/scaling_governor")).ok())
        .map(|text| text.trim().to_owned())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn isolated(root: &Root) -> Finding {
    const CHECK: &str = "isolated_cores";
    match root.read("sys/devices/system/cpu/isolated").filter(|list| !list.is_empty()) {
        Some(list) => {
            Finding::ok(CHECK, format!("{list}; pin writer and readers to them with taskset or an affinity call"))
        }
        None => Finding::note(
            CHECK,
            "none: spinning readers share their cores with everything else",
            "for the last of the latency tail: boot with isolcpus=… nohz_full=… and pin writer and readers there",
        ),
    }
}

fn locked_memory(root: &Root, capacity: Option<u64>) -> Finding {
    const CHECK: &str = "locked_memory";
    const CAP_IPC_LOCK: u32 = 14;
    let needed = capacity.unwrap_or(ROOM);
    let capable = root.read("proc/self/status").is_some_and(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
    });
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        _ if capable => Finding::ok(CHECK, "no limit for this process (it has CAP_IPC_LOCK)"),
        Ok((limit, _)) if limit >= needed => Finding::ok(CHECK, format!("up to {} can be locked", bytes(limit))),
        Ok((limit, _)) => Finding::note(
            CHECK,
            format!("at most {} can be locked, less than {}", bytes(limit), bytes(needed)),
            "programs that ask to lock a ring's memory will be refused: raise ulimit -l, or LimitMEMLOCK= of the service",
        ),
        Err(errno) => Finding::note(CHECK, format!("the limit cannot be read: {}", errno.desc()), "look at ulimit -l"),
    }
}

/// What the first process's namespaces are numbered by every kernel.
const INITIAL: [(&str, u64); 3] = [("pid", 0xEFFF_FFFC), ("time", 0xEFFF_FFFA), ("user", 0xEFFF_FFFD)];

/// The number of a process's namespace, if it may be known.
pub(super) fn namespace(root: &Path, pid: &str, kind: &str) -> Option<u64> {
    let link = fs::read_link(root.join("proc").join(pid).join("ns").join(kind)).ok()?;
    link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

fn namespaces(root: &Root) -> Finding {
    const CHECK: &str = "namespaces";
    let own: Vec<&str> = INITIAL
        .iter()
        .filter(|&&(kind, initial)| namespace(&root.0, "self", kind).is_some_and(|number| number != initial))
        .map(|(kind, _)| *kind)
        .collect();
    if own.is_empty() {
        return Finding::ok(CHECK, "the machine's own");
    }
    Finding::note(
        CHECK,
        format!("this process has its own of kind {}: a container", own.join(", ")),
        "others see a bus only through a shared directory (docker run --ipc=host, or one volume in memory for all); \
         process numbers shown for other containers are theirs",
    )
}

/// Buses that nobody uses, and pieces of buses, in a directory and those right below it.
fn leftovers(place: &Path) -> Vec<Finding> {
    const CHECK: &str = "leftovers";
    let mut files = Vec::new();
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries(place).take(MOST_ENTRIES) {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => files.extend(entries(&path).take(MOST_ENTRIES)),
            Ok(meta) if meta.is_file() => files.push(path),
            _ => {}
        }
    }
    files.sort();
    let mut findings = Vec::new();
    for path in &files {
        let shown = path.display();
        let base = |suffix: &str| path.to_str().and_then(|text| text.strip_suffix(suffix)).map(PathBuf::from);
        if let Some(bus) = base(".readers").filter(|bus| !bus.exists()) {
            if super::bus::starts_as_table(path) && !super::bus::being_created(&bus) {
                findings.push(Finding::warning(
                    CHECK,
                    format!("{shown}: the table of a bus that is gone"),
                    format!("lapwing rm {}", bus.display()),
                ));
            }
        } else if let Ok(snapshot) = Bus::inspect(path) {
            let abandoned =
                matches!(snapshot.writer.state, WriterState::Absent | WriterState::Closed | WriterState::Replaced);
            let served = snapshot.readers.iter().flatten().any(|reader| reader.alive);
            if abandoned && !served {
                findings.push(Finding::note(
                    CHECK,
                    format!(
                        "{shown}: {} of a bus whose writer is {}, with no living reader",
                        bytes(snapshot.capacity),
                        snapshot.writer.state
                    ),
                    format!("if nobody resumes there: lapwing rm {shown}"),
                ));
            }
        }
    }
    if findings.is_empty() {
        let looked = plural(files.len() as u64, "file");
        findings.push(Finding::ok(CHECK, format!("none in {} ({looked} looked at)", place.display())));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("lapwing-doctor-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
                fs::write(path, text).expect("it can be written");
            }
            Self(root)
        }

        fn root(&self) -> Root {
            Root(self.0.clone())
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn governors_are_told_unless_all_are_performance() {
        const AT: [&str; 2] = [
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        ];
        let mixed = Tree::new("mixed", &[(AT[0], "performance\n"), (AT[1], "powersave\n")]);
        let finding = governor(&mixed.root());
        assert_eq!((finding.level, finding.found.as_str()), (Level::Note, "performance, powersave"));
        let fast = Tree::new("fast", &[(AT[0], "performance\n"), (AT[1], "performance\n")]);
        assert_eq!(governor(&fast.root()).level, Level::Ok);
        let virtual_one = Tree::new("virtual", &[("sys/devices/system/cpu/online", "0-1\n")]);
        assert_eq!(governor(&virtual_one.root()).level, Level::Ok);
    }

    #[test]
    fn huge_pages_count_by_the_kernels_setting_or_the_mount() {
        const AT: &str = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
        let never = "always within_size advise [never] deny force\n";
        for (name, setting, mounts, level) in [
            ("never", never, "tmpfs /dev/shm tmpfs rw,nosuid 0 0\n", Level::Note),
            ("mounted", never, "tmpfs /dev/shm tmpfs rw,huge=within_size 0 0\n", Level::Ok),
            ("elsewhere", never, "tmpfs /tmp tmpfs rw,huge=always 0 0\n", Level::Note),
            ("always", "[always] within_size advise never deny force\n", "", Level::Ok),
            (
                "denied",
                "always within_size advise never [deny] force\n",
                "tmpfs /dev/shm tmpfs rw,huge=always 0 0\n",
                Level::Note,
            ),
        ] {
            let tree = Tree::new(name, &[(AT, setting), ("proc/mounts", mounts)]);
            assert_eq!(huge_pages(&tree.root()).level, level, "{name}");
        }
        assert_eq!(huge_pages(&Tree::new("old", &[("proc/mounts", "")]).root()).level, Level::Ok);
    }

    #[test]
    fn isolated_cores_are_listed() {
        let some = Tree::new("some", &[("sys/devices/system/cpu/isolated", "2-3\n")]);
        assert!(isolated(&some.root()).found.starts_with("2-3"));
        let none = Tree::new("none", &[("sys/devices/system/cpu/isolated", "\n")]);
        assert_eq!(isolated(&none.root()).level, Level::Note);
    }

    #[test]
    fn namespaces_of_a_container_are_named() {
        let tree = Tree::new("container", &[("proc/self/ns/placeholder", "")]);
        let link = |kind: &str, number: u64| {
            std::os::unix::fs::symlink(format!("{kind}:[{number}]"), tree.0.join("proc/self/ns").join(kind))
                .expect("a link");
        };
        link("pid", 4_026_532_000);
        link("time", 0xEFFF_FFFA);
        link("user", 0xEFFF_FFFD);
        let finding = namespaces(&tree.root());
        assert_eq!(finding.level, Level::Note);
        assert!(finding.found.contains("kind pid:"), "{}", finding.found);
    }

    #[test]
    fn a_place_without_memory_is_a_warning() {
        assert_eq!(shared_memory(Path::new("/proc/self")).level, Level::Warning);
        assert_eq!(shared_memory(Path::new("/nowhere at all")).level, Level::Warning);
    }

    #[test]
    fn leftovers_are_told_with_what_removes_them() {
        let tree = Tree::new("leftovers", &[("other", "no bus"), ("sub/text.readers", "no table")]);
        assert_eq!(leftovers(&tree.0)[0].level, Level::Ok);
        let bus = tree.0.join("sub/bus");
        drop(lapwing::Options::new().capacity(4096).create(&bus).expect("a new bus"));
        let found = leftovers(&tree.0);
        assert_eq!((found.len(), found[0].level), (1, Level::Note), "{found:?}");
        fs::remove_file(&bus).expect("it is there");
        let found = leftovers(&tree.0);
        assert_eq!((found.len(), found[0].level), (1, Level::Warning), "{found:?}");
        assert_eq!(found[0].advice, Some(format!("lapwing rm {}", bus.display())));
    }
}
