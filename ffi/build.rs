//! Gives the shared library the name that programs linked against it ask for, and cargo-c the CMake package to install.

use std::path::Path;
use std::{env, fs};

/// Where a package in `PREFIX/share/cmake/lapwing` finds the libraries, whatever they are called by the system, and the headers.
const LIBS: &str = "../../../lib/${CMAKE_LIBRARY_ARCHITECTURE};../../../lib64;../../../lib";
const INCLUDE: &str = "../../../include";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=packaging");
    let version = env::var("CARGO_PKG_VERSION")?;
    let soversion = env::var("CARGO_PKG_VERSION_MAJOR")?;
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liblapwing.so.{soversion}");
    // cargo-c asks for this feature. `install` fills in the same files for a tree that it lays out itself.
    if env::var_os("CARGO_FEATURE_CAPI").is_some() {
        let to = Path::new(&env::var("OUT_DIR")?).join("cmake");
        fs::create_dir_all(&to)?;
        for name in ["lapwing-config.cmake", "lapwing-config-version.cmake"] {
            let filled = fs::read_to_string(format!("packaging/{name}.in"))?
                .replace("@version@", &version)
                .replace("@soversion@", &soversion)
                .replace("@libs_from_cmake@", LIBS)
                .replace("@include_from_cmake@", INCLUDE);
            fs::write(to.join(name), filled)?;
        }
    }
    Ok(())
}
