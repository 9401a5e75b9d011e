//! Threads that run a network.
//!
//! In: a device. Out: a thread whose results do not depend on the number of threads.

use std::cell::Cell;
use std::sync::Once;

use super::{Device, keep_freed_memory};

/// Sets the calling thread up for inference on `device` until the guard is dropped.
///
/// On a CPU: one thread inside every operation, and denormals flushed to zero. Both are set per
/// thread because OpenMP and the processor keep them per thread.
pub fn inference_guard(device: Device) -> Option<FlushDenormals> {
    if device != Device::Cpu {
        return None;
    }
    thread_local!(static READY: Cell<bool> = const { Cell::new(false) });
    READY.with(|ready| {
        if !ready.replace(true) {
            use_one_thread_per_operation();
        }
    });
    Some(FlushDenormals::new())
}

fn use_one_thread_per_operation() {
    static ONCE: Once = Once::new();
    // libtorch lets this be set once per process, before its own pool starts.
    ONCE.call_once(|| {
        keep_freed_memory();
        if tch::get_num_interop_threads() != 1 {
            tch::set_num_interop_threads(1);
        }
    });
    tch::set_num_threads(1);
}

/// While it lives, its thread treats denormal floats as zero: operations on them take a hundred
/// times as long.
pub struct FlushDenormals {
    before: u64,
    /// The state belongs to one thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl FlushDenormals {
    fn new() -> Self {
        let before = float_control();
        set_float_control(before | FLUSH_BITS);
        Self {
            before,
            _thread: std::marker::PhantomData,
        }
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        set_float_control(self.before);
    }
}

/// MXCSR: flush-to-zero and denormals-are-zero.
#[cfg(target_arch = "x86_64")]
const FLUSH_BITS: u64 = 1 << 15 | 1 << 6;
/// FPCR: flush-to-zero.
#[cfg(target_arch = "aarch64")]
const FLUSH_BITS: u64 = 1 << 24;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FLUSH_BITS: u64 = 0;

#[cfg(target_arch = "x86_64")]
fn float_control() -> u64 {
    let mut value: u32 = 0;
    // SAFETY: stores the 32-bit control word into a local variable of that size.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags))
    };
    u64::from(value)
}

#[cfg(target_arch = "x86_64")]
fn set_float_control(value: u64) {
    let value = value as u32;
    // SAFETY: the value is the thread's own control word with at most the two flush bits changed.
    // It is put back when the guard drops; until then the thread only calls libtorch and copies,
    // without Rust arithmetic on denormals.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags))
    };
}

#[cfg(target_arch = "aarch64")]
fn float_control() -> u64 {
    let value: u64;
    // SAFETY: reads the floating-point control register.
    unsafe {
        std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags))
    };
    value
}

#[cfg(target_arch = "aarch64")]
fn set_float_control(value: u64) {
    // SAFETY: as on x86-64: only the flush bit changes, and only until the guard drops.
    unsafe {
        std::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags))
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn float_control() -> u64 {
    0
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn set_float_control(_value: u64) {}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn denormals_are_flushed_only_under_the_guard() {
        let tiny = Tensor::from_slice(&[1e-30f32]);
        let square = || (&tiny * 1e-10).double_value(&[0]);
        assert!(square() > 0.0);
        {
            let _guard = inference_guard(Device::Cpu);
            assert_eq!(square(), 0.0);
            assert_eq!(tch::get_num_threads(), 1);
        }
        assert!(square() > 0.0);
    }
}
