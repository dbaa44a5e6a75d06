//! Notes for the output: compiler, flags, and the versions of what is compared.

use std::path::Path;
use std::process::Command;

const COMPARED: [&str; 11] = [
    "lapwing",
    "bcast",
    "crossbar",
    "crossbeam-channel",
    "disruptor",
    "disruptor-mp",
    "iceoryx2",
    "ringfire",
    "rusteron-client",
    "rusteron-media-driver",
    "tokio",
];

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    let lock = std::fs::read_to_string(Path::new(&root).join("Cargo.lock")).unwrap_or_default();
    let mut versions = Vec::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("name = ").map(|name| name.trim_matches('"')) else { continue };
        if COMPARED.contains(&name)
            && let Some(version) = lines.next().and_then(|line| line.strip_prefix("version = "))
        {
            versions.push(format!("{name} {}", version.trim_matches('"')));
        }
    }
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let compiler = Command::new(rustc).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    println!("cargo::rustc-env=PEERS_RUSTC={}", String::from_utf8_lossy(&compiler).trim());
    println!("cargo::rustc-env=PEERS_VERSIONS={}", versions.join(", "));
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().replace('\u{1f}', " ");
    println!(
        "cargo::rustc-env=PEERS_FLAGS=opt-level 3, thin LTO, {}",
        if flags.is_empty() { "default target" } else { &flags }
    );
    println!("cargo::rerun-if-changed=Cargo.lock");
}
