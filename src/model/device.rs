//! The device that runs the network.
//!
//! In: `auto`, `cpu` or `cuda[:i,…]`. Out: [`Device`]s, and threads set up so that a CPU's results
//! do not depend on how many there are. Never falls back silently from a device that was asked for.

#[cfg(feature = "torch")]
mod cuda;
#[cfg(feature = "torch")]
mod inference;

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

#[cfg(feature = "torch")]
pub use cuda::{cuda, driver_present, resolve};
#[cfg(feature = "torch")]
pub use inference::inference_guard;

use super::error::ModelError;

/// A device that can run a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// A GPU by its index.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

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

/// Lets the C library keep large blocks that were freed. A network frees and asks for the same
/// sizes all the time, and each round trip to the kernel costs a page fault per 4 KiB (a ninth of
/// the time of an inference, a sixth of a training's).
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    keep_up_to(1 << 30);
}

/// Undoes [`keep_freed_memory`] and gives back what was kept: the steps after the network need
/// other sizes, and both together would break the memory budget.
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        keep_up_to(1 << 20);
        // SAFETY: malloc_trim only returns pages that nobody uses.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Sets the largest block that malloc keeps when it is freed, and the most free memory that it
/// holds at the end of its heap.
#[cfg(target_env = "gnu")]
fn keep_up_to(bytes: libc::c_int) {
    // SAFETY: mallopt only sets thresholds of malloc; it ignores a value that it cannot take.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes);
        libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
