//! What the machine allows and what it computes with.

use std::fs;

/// Memory this process may use: the least of the cgroup's limit (v2 or v1) and the machine's.
pub fn memory_limit_bytes() -> Option<u64> {
    let cgroup = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kib| kib << 10)
    });
    cgroup.chain(machine).min()
}

/// What a chunk's last bits depend on: kind of device, instruction set, libtorch, OpenSlide.
pub fn numerics(device: tch::Device) -> String {
    let device = match device {
        tch::Device::Cpu => instruction_set(),
        _ => "cuda",
    };
    let openslide = openslide_rs::OpenSlide::version().unwrap_or_else(|_| "?".into());
    format!("{device}; libtorch {LIBTORCH}; OpenSlide {openslide}")
}

/// The libtorch that tch was built against.
pub const LIBTORCH: &str = "2.11.0";

fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "cpu avx512";
        }
        if is_x86_feature_detected!("avx2") {
            return "cpu avx2";
        }
        "cpu x86-64"
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH
}
