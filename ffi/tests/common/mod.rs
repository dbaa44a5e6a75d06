//! What the tests of other languages share: the library built once, compilers, interpreters, places for buses.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Builds the libraries and the Rust example the way this test was, and returns the directory they are in. (cargo builds them for no test:
/// no Rust program can link them.)
pub(crate) fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("this test's path");
        let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--lib", "--example", "interop"]);
        cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
        cargo.arg("--target-dir").arg(profile.parent().expect("target"));
        if profile.file_name() == Some(OsStr::new("release")) {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "the library does not build");
        profile.into()
    })
}

/// Compiles a source relative to the repository, once, and returns the program, or `None`, loudly, without a compiler.
pub(crate) fn compile(source: &str) -> Option<PathBuf> {
    static COMPILED: Mutex<BTreeMap<String, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.entry(source.into()).or_insert_with(|| compile_anew(source)).clone()
}

/// The same with a source that is given as text.
pub(crate) fn compile_text(name: &str, text: &str) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&source, text).expect("written");
    compile(source.to_str().expect("UTF-8"))
}

fn compile_anew(source: &str) -> Option<PathBuf> {
    let source = Path::new(ROOT).join(source);
    let (compiler, standard) = match source.extension().and_then(OsStr::to_str) {
        Some("cpp") => (std::env::var("CXX").unwrap_or("c++".into()), "-std=c++17"),
        _ => (std::env::var("CC").unwrap_or("cc".into()), "-std=c11"),
    };
    if Command::new(&compiler).arg("--version").output().is_err() {
        eprintln!("SKIPPED: no {compiler}: {} was not compiled", source.display());
        return None;
    }
    let name: String = source.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy()).collect();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.bin"));
    let output = Command::new(&compiler)
        .args([standard, "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg(format!("-I{ROOT}/include"))
        .arg(&source)
        .arg(built().join("liblapwing.a"))
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output()
        .expect("the compiler runs");
    assert!(output.status.success(), "{}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
    Some(program)
}

/// Python with the package and the library, or `None`, loudly.
pub(crate) fn python() -> Option<Command> {
    let interpreter = std::env::var("PYTHON").unwrap_or("python3".into());
    match Command::new(&interpreter).args(["-c", "import ctypes, sys; sys.exit(sys.version_info < (3, 9))"]).status() {
        Ok(status) if status.success() => {}
        _ => {
            eprintln!("SKIPPED: no {interpreter} of version 3.9 with ctypes");
            return None;
        }
    }
    let mut command = Command::new(interpreter);
    command.arg("-B").env("PYTHONPATH", format!("{ROOT}/python"));
    command.env("LAPWING_LIBRARY", built().join("liblapwing.so"));
    Some(command)
}

/// A directory of its own in memory (or in the target directory), removed with all it holds when dropped, also by a panic.
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    /// Where the test's bus lies.
    pub(crate) bus: PathBuf,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
        let directory = base.join(format!("lapwing-ffi-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).expect("a directory of its own");
        Self { bus: directory.join("bus"), directory }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
