//! Gives the shared library the name that programs linked against it ask for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liblapwing.so.0");
}
