//! Calls on a bus by its path, without a role: inspect, evict, reap, forget, remove.

use crate::status::*;
use crate::types::*;
use bus::{Bus, ReaderId};
use std::ffi::{c_char, c_int};

fn done<T>(result: bus::Result<T>) -> Result<T, c_int> {
    result.map_err(|error| fail_with(&error))
}

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
            (crate::types::path(path)?, Out::new(snapshot, "snapshot")?, Infos::new(readers, capacity, count)?)
        };
        let found = done(Bus::inspect(path))?;
        out.write(&lapwing_snapshot::of(&found));
        infos.write(found.readers.as_deref().unwrap_or_default())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_bus_evict(path: *const c_char, reader: u64) -> c_int {
    guard(|| {
        // SAFETY: as the header asks of the caller.
        let bus = done(Bus::open(unsafe { crate::types::path(path)? }))?;
        Ok(if done(bus.evict(ReaderId(reader)))?.is_some() { LAPWING_OK } else { LAPWING_ALREADY })
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
        let (path, infos) = unsafe { (crate::types::path(path)?, Infos::new(readers, capacity, count)?) };
        infos.write(&done(done(Bus::open(path))?.reap())?)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_bus_forget(path: *const c_char, name: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: as the header asks of the caller.
        let (path, name) = unsafe { (crate::types::path(path)?, text(name, "name")?) };
        let name = name.ok_or_else(|| null("name"))?;
        done(done(Bus::open(path))?.forget(name))?;
        Ok(LAPWING_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_bus_remove(path: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: as the header asks of the caller.
        done(Bus::remove(unsafe { crate::types::path(path)? }))?;
        Ok(LAPWING_OK)
    })
}
