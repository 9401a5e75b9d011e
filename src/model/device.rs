//! Which device runs the network.
//!
//! In: `auto`, `cpu` or `cuda[:i,…]`. Out: torch devices, and threads set up so that a CPU's results do not depend on
//! how many there are. CUDA is found at run time, never linked: libtorch_cuda.so is opened where libtorch_cpu.so was
//! found. Never falls back silently from a device that was asked for.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Once, OnceLock};

use serde::{Serialize, Serializer};
use tch::Device;

use super::error::ModelError;
use crate::machine::loaded_library;

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU where CUDA works, else the CPU.
    Auto,
    Cpu,
    /// GPUs by index.
    Cuda(Vec<usize>),
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let wrong = || ModelError::Device {
            asked: text.to_string(),
            reason: "is not known: give auto, cpu, cuda, cuda:0 or cuda:0,1".into(),
        };
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(vec![0])),
            _ => {
                let list = text.strip_prefix("cuda:").ok_or_else(wrong)?;
                let mut indices = list
                    .split(',')
                    .map(|index| index.parse().map_err(|_| wrong()))
                    .collect::<Result<Vec<usize>, _>>()?;
                indices.sort_unstable();
                indices.dedup();
                Ok(DeviceChoice::Cuda(indices))
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(indices) => {
                let list: Vec<String> = indices.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", list.join(","))
            }
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The devices of a choice, at least one. `cuda` where CUDA does not work is an error that says why.
pub fn resolve(choice: &DeviceChoice) -> Result<Vec<Device>, ModelError> {
    let refused = |reason: String| ModelError::Device {
        asked: choice.to_string(),
        reason,
    };
    match choice {
        DeviceChoice::Cpu => Ok(vec![Device::Cpu]),
        DeviceChoice::Auto => Ok(match cuda() {
            Ok(count) if *count > 0 => vec![Device::Cuda(0)],
            _ => vec![Device::Cpu],
        }),
        DeviceChoice::Cuda(indices) => {
            let count = cuda().as_ref().map_err(|reason| refused(reason.clone()))?;
            match indices.iter().find(|&index| index >= count) {
                None => Ok(indices.iter().map(|&index| Device::Cuda(index)).collect()),
                Some(index) => Err(refused(format!(
                    "there is no GPU {index}, CUDA sees {count}: check CUDA_VISIBLE_DEVICES, or use --device auto"
                ))),
            }
        }
    }
}

/// Number of usable GPUs, or why there are none. Looks once: the answer holds for the process.
pub fn cuda() -> &'static Result<usize, String> {
    static CUDA: OnceLock<Result<usize, String>> = OnceLock::new();
    CUDA.get_or_init(open_cuda)
}

fn open_cuda() -> Result<usize, String> {
    if !driver_present() {
        return Err(
            "this machine has no NVIDIA driver (no /dev/nvidiactl): use --device cpu".into(),
        );
    }
    let cpu_library = loaded_library("libtorch_cpu.so")
        .ok_or("libtorch_cpu.so is not among the loaded libraries, so libtorch_cuda.so cannot be looked for beside it")?;
    let library = cpu_library.with_file_name("libtorch_cuda.so");
    if !library.exists() {
        return Err(format!(
            "{} does not exist: this libtorch is built for CPUs; set one up with CUDA (WSI_NUCLEI_CUDA=1 scripts/setup.sh)",
            library.display()
        ));
    }
    open_library(&library).map_err(|reason| {
        format!("{reason}: fetch CUDA's libraries with WSI_NUCLEI_CUDA=1 scripts/setup.sh, or use --device cpu")
    })?;
    if !tch::Cuda::is_available() {
        return Err("libtorch finds no usable GPU: check nvidia-smi, and that the driver is new enough for CUDA 13".into());
    }
    usize::try_from(tch::Cuda::device_count())
        .map_err(|_| "CUDA reports a negative number of GPUs".into())
}

/// Whether an NVIDIA kernel driver is loaded here.
pub fn driver_present() -> bool {
    Path::new("/dev/nvidiactl").exists() || Path::new("/proc/driver/nvidia/version").exists()
}

fn open_library(path: &Path) -> Result<(), String> {
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| "its path holds a NUL byte".to_string())?;
    // SAFETY: `name` is a NUL-terminated path; the library's constructors only register CUDA kernels with the
    // libtorch already loaded; it is never closed, so nothing that it registers can dangle.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror gives null or a NUL-terminated text that stays valid until the next dl call of this thread.
    let text = unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(text.unwrap_or_else(|| format!("{} cannot be opened", path.display())))
}

/// Sets the calling thread up for inference on `device` until the guard is dropped.
///
/// On a CPU: one thread inside every operation, and denormals flushed to zero. Both are set a thread because OpenMP
/// and the processor keep them a thread.
pub fn inference_guard(device: Device) -> Option<FlushDenormals> {
    if device != Device::Cpu {
        return None;
    }
    thread_local!(static READY: Cell<bool> = const { Cell::new(false) });
    READY.with(|ready| {
        if !ready.replace(true) {
            one_thread_an_operation();
        }
    });
    Some(FlushDenormals::new())
}

fn one_thread_an_operation() {
    static ONCE: Once = Once::new();
    // libtorch lets this be set once a process, before its own pool starts.
    ONCE.call_once(|| {
        keep_freed_memory();
        if tch::get_num_interop_threads() != 1 {
            tch::set_num_interop_threads(1);
        }
    });
    tch::set_num_threads(1);
}

/// Lets the C library keep large blocks that were freed: a network frees and asks for the same sizes all the time, and
/// each round trip to the kernel costs a page fault every 4 KiB (a ninth of the time of an inference, a sixth of a
/// training's).
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    keep_up_to(1 << 30);
}

/// Undoes [`keep_freed_memory`] and gives back what is kept: what follows a network needs other sizes, and both together
/// would break the memory budget.
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        keep_up_to(1 << 20);
        // SAFETY: it only returns pages that nobody uses.
        unsafe { libc::malloc_trim(0) };
    }
}

/// The largest block that malloc keeps when it is freed, and the most free memory it holds at the end of its heap, bytes.
#[cfg(target_env = "gnu")]
fn keep_up_to(bytes: libc::c_int) {
    // SAFETY: mallopt only sets thresholds of this process's malloc; a value that it does not take changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes);
        libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
    }
}

/// While it lives, its thread treats denormal floats as zero: they cost a hundred times a normal operation.
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
    // SAFETY: the value is the thread's own control word with at most the two flush bits changed; it is put back when
    // the guard drops, and between lie calls into libtorch and copies, no Rust arithmetic on denormals.
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
    use tch::{Kind, Tensor};

    #[test]
    fn choices_parse_and_print() {
        for text in ["auto", "cpu", "cuda:0", "cuda:0,1"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(vec![0])
        );
        assert_eq!(
            "cuda:1,0,1".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(vec![0, 1])
        );
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0,", "CPU"] {
            let message = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains("cuda:0,1"), "{message}");
        }
    }

    #[test]
    fn cuda_without_a_driver_is_refused_with_the_cure() {
        if driver_present() {
            eprintln!(
                "skipped: cuda_without_a_driver_is_refused_with_the_cure: this machine has an NVIDIA driver"
            );
            return;
        }
        let message = resolve(&DeviceChoice::Cuda(vec![0]))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("no NVIDIA driver") && message.contains("--device cpu"),
            "{message}"
        );
        assert_eq!(resolve(&DeviceChoice::Auto).unwrap(), vec![Device::Cpu]);
    }

    #[test]
    fn libtorch_is_found_among_the_loaded_libraries() {
        let _ = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let path = loaded_library("libtorch_cpu.so").unwrap();
        assert!(path.is_absolute() && path.exists());
        assert_eq!(loaded_library("libnot_here.so"), None);
    }

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
