//! GPUs.
//!
//! In: a [`DeviceChoice`]. Out: devices that are there. CUDA is found at run time, never linked:
//! libtorch_cuda.so is opened where libtorch_cpu.so was found.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use super::{Device, DeviceChoice};
use crate::machine::loaded_library;
use crate::model::error::ModelError;

impl From<Device> for tch::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda(index) => tch::Device::Cuda(index),
        }
    }
}

/// The devices of a choice, at least one.
///
/// # Errors
/// [`ModelError::Device`] where a GPU was asked for that is not there, and why.
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
                    "there is no GPU {index}, CUDA sees {count}: \
                     check CUDA_VISIBLE_DEVICES, or use --device auto"
                ))),
            }
        }
    }
}

/// Number of usable GPUs, or why there are none. The answer is found once per process.
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
    let cpu_library = loaded_library("libtorch_cpu.so").ok_or(
        "libtorch_cpu.so is not among the loaded libraries, so libtorch_cuda.so cannot be looked \
             for beside it",
    )?;
    let library = cpu_library.with_file_name("libtorch_cuda.so");
    if !library.exists() {
        return Err(format!(
            "{} does not exist: this libtorch is built for CPUs; \
             set one up with CUDA (WSI_NUCLEI_CUDA=1 scripts/setup.sh)",
            library.display()
        ));
    }
    open_library(&library).map_err(|reason| {
        format!(
            "{reason}: fetch CUDA's libraries with WSI_NUCLEI_CUDA=1 scripts/setup.sh, \
             or use --device cpu"
        )
    })?;
    if !tch::Cuda::is_available() {
        return Err(
            "libtorch finds no usable GPU: check nvidia-smi, and that the driver is new enough for \
             CUDA 13"
                .into(),
        );
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
    // SAFETY: `name` is a NUL-terminated path. The library's constructors only register CUDA
    // kernels with the libtorch already loaded. It is never closed, so nothing that it registers
    // can dangle.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror gives null or a NUL-terminated text, valid until this thread's next dl call.
    let text = unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(text.unwrap_or_else(|| format!("{} cannot be opened", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

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
        let _ = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
        let path = loaded_library("libtorch_cpu.so").unwrap();
        assert!(path.is_absolute() && path.exists());
        assert_eq!(loaded_library("libnot_here.so"), None);
    }
}
