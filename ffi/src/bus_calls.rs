//! Calls on a bus by its path, without a role: inspect, evict, reap, forget, remove.

use crate::border::*;
use crate::status::*;
use crate::types::*;
use bus::{Bus, ReaderId};
use std::ffi::{c_char, c_int};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_bus_inspect(
    path: *const c_char,
    snapshot: *mut lapwing_snapshot,
    readers: *mut lapwing_reader_info,
    capacity: usize,
    count: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: as the header asks of the caller.
        let (path, out, infos) = unsafe {
            (crate::border::path(path)?, Out::new(snapshot, "snapshot")?, Infos::new(readers, capacity, count)?)
        };
        let found = Bus::inspect(path).map_err(fail_with)?;
        out.write(&lapwing_snapshot::of(&found));
        infos.write(found.readers.as_deref().unwrap_or_default())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_bus_evict(path: *const c_char, reader: u64) -> c_int {
    guard(|| {
        // SAFETY: as the header asks of the caller.
        let path = unsafe { crate::border::path(path)? };
        let evicted = Bus::open(path).and_then(|bus| bus.evict(ReaderId(reader))).map_err(fail_with)?;
        Ok(if evicted.is_some() { LAPWING_OK } else { LAPWING_ALREADY })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_bus_reap(
    path: *const c_char,
    readers: *mut lapwing_reader_info,
    capacity: usize,
    count: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: as the header asks of the caller.
        let (path, infos) = unsafe { (crate::border::path(path)?, Infos::new(readers, capacity, count)?) };
        infos.write(&Bus::open(path).and_then(|bus| bus.reap()).map_err(fail_with)?)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_bus_forget(path: *const c_char, name: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: as the header asks of the caller.
        let (path, name) = unsafe { (crate::border::path(path)?, text(name, "name", bus::layout::MAX_NAME)?) };
        let name = name.ok_or_else(|| null("name"))?;
        Bus::open(path).and_then(|bus| bus.forget(name)).map_err(fail_with)?;
        Ok(LAPWING_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_bus_remove(path: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: as the header asks of the caller.
        Bus::remove(unsafe { crate::border::path(path)? }).map_err(fail_with)?;
        Ok(LAPWING_OK)
    })
}
