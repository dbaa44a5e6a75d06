//! The clock: the processor's counter, which runs evenly on all cores.

use std::time::{Duration, Instant};

/// Reads the counter once everything before it has finished.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: both instructions exist on every x86-64. Without the fence the counter may be read before the load that it times.
    unsafe {
        std::arch::x86_64::_mm_lfence();
        std::arch::x86_64::_rdtsc()
    }
}

/// Reads the counter without waiting for what goes before.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn rough() -> u64 {
    // SAFETY: exists on every x86-64.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Reads the counter once everything before it has finished.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub fn ticks() -> u64 {
    let now: u64;
    // SAFETY: the virtual counter is readable from user space on Linux.
    unsafe { std::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) now, options(nostack)) };
    now
}

/// Reads the counter without waiting for what goes before.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub fn rough() -> u64 {
    let now: u64;
    // SAFETY: the virtual counter is readable from user space on Linux.
    unsafe { std::arch::asm!("mrs {}, cntvct_el0", out(reg) now, options(nostack)) };
    now
}

/// Measures how many ticks a nanosecond has.
pub fn calibrate() -> f64 {
    let mut rates: Vec<f64> = (0..5)
        .map(|_| {
            let (from, started) = (ticks(), Instant::now());
            while started.elapsed() < Duration::from_millis(20) {
                std::hint::spin_loop();
            }
            let (till, elapsed) = (ticks(), started.elapsed());
            (till - from) as f64 / elapsed.as_nanos() as f64
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[2]
}
