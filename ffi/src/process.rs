//! Calls about the process as a whole.

use crate::status::*;
use std::ffi::c_int;

#[unsafe(no_mangle)]
pub extern "C" fn lapwing_guard_install() -> c_int {
    guard(|| {
        bus::guard::install().map_err(fail_with)?;
        Ok(LAPWING_OK)
    })
}
