//! The machine: its CPU, its memory limit, its libraries.
//!
//! In: nothing but the system. Out: plain facts. Knows nothing of slides or models, changes nothing
//! and never fails: a fact that cannot be found out is left empty.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The processor.
#[derive(Debug, Clone, Serialize)]
pub struct Cpu {
    pub model: String,
    /// Logical cores of the machine.
    pub cores: usize,
    /// Logical cores that this process may use, by affinity, cgroup quota and the scheduler's word.
    pub usable_cores: usize,
    /// Vector instructions that matter here, best last.
    pub instructions: Vec<&'static str>,
}

/// Main memory.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    pub total_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
    /// The lowest limit of the cgroups that this process is in (container, Slurm job).
    pub cgroup_limit_bytes: Option<u64>,
    /// What the scheduler gave this job.
    pub job_limit_bytes: Option<u64>,
}

/// A shared library in use.
#[derive(Debug, Clone, Serialize)]
pub struct Library {
    pub version: String,
    pub path: Option<PathBuf>,
}

/// The memory that this process can count on, bytes: the lowest of the machine's, the cgroup's and the job's
/// limit.
pub fn memory_limit_bytes() -> Option<u64> {
    let memory = memory();
    memory
        .total_bytes
        .into_iter()
        .chain(memory.cgroup_limit_bytes)
        .chain(memory.job_limit_bytes)
        .min()
}

/// The most memory that this process has held so far, bytes, where the system says so (Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// What the last bits of a result depend on: kind of device, instruction set, libtorch, OpenSlide.
/// Recorded with each tile.
pub fn numerics(on_gpu: bool) -> String {
    let device = match on_gpu {
        false => {
            let instructions = instructions();
            let widest = ["avx512f", "avx2"]
                .into_iter()
                .find(|name| instructions.contains(name));
            format!("cpu {}", widest.unwrap_or(std::env::consts::ARCH))
        }
        true => "cuda".into(),
    };
    format!(
        "{device}; libtorch {}; OpenSlide {}",
        libtorch().version,
        openslide().version
    )
}

/// Cores and instruction sets.
pub fn cpu() -> Cpu {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let usable_cores = usable_cores();
    Cpu {
        model: field(&info, "model name").unwrap_or("unknown").to_string(),
        cores: cores.max(usable_cores),
        usable_cores,
        instructions: instructions(),
    }
}

/// Logical cores that this process may use: by affinity and cgroup quota, and no more than the scheduler gave the job.
/// Not every site binds a job to its cores.
pub fn usable_cores() -> usize {
    let here = std::thread::available_parallelism().map_or(1, |n| n.get());
    let given = job_cores(|name| std::env::var(name).ok());
    given.map_or(here, |given| given.min(here))
}

/// Variables in which schedulers say how many cores a task has, the most exact first.
const JOB_CORES: [&str; 5] = [
    "SLURM_CPUS_PER_TASK",
    "NSLOTS",
    "LSB_DJOB_NUMPROC",
    "NCPUS",
    "PBS_NCPUS",
];

/// The cores that the scheduler gave this job; `None`: it says nothing.
fn job_cores(lookup: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let numbers = JOB_CORES
        .iter()
        .filter_map(|name| lookup(name)?.trim().parse().ok());
    numbers.into_iter().find(|&cores| cores > 0)
}

/// The memory that the scheduler gave this job, bytes; `None`: it says nothing, or all of the node's (0).
fn job_memory_bytes(lookup: impl Fn(&str) -> Option<String>) -> Option<u64> {
    // Slurm counts in MiB.
    let mib = |name: &str| {
        lookup(name)?
            .trim()
            .parse::<u64>()
            .ok()
            .filter(|&mib| mib > 0)
    };
    let by_cpu = || {
        let cpus = mib("SLURM_CPUS_ON_NODE").or_else(|| mib("SLURM_CPUS_PER_TASK"))?;
        mib("SLURM_MEM_PER_CPU")?.checked_mul(cpus)
    };
    mib("SLURM_MEM_PER_NODE")
        .or_else(by_cpu)?
        .checked_mul(1 << 20)
}

/// The value of the first `name : value` line.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<&'static str> {
    [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ]
    .into_iter()
    .filter_map(|(name, present)| present.then_some(name))
    .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Vec<&'static str> {
    vec![]
}

/// Memory of the machine and of the cgroup.
pub fn memory() -> Memory {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Memory {
        total_bytes: kib(&info, "MemTotal"),
        available_bytes: kib(&info, "MemAvailable"),
        cgroup_limit_bytes: cgroup_limit(Path::new("/sys/fs/cgroup"), &groups),
        job_limit_bytes: job_memory_bytes(|name| std::env::var(name).ok()),
    }
}

/// A `/proc/meminfo` line in bytes.
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, name)?
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    kib.checked_mul(1024)
}

/// The lowest memory limit from this process's cgroup up to the root; cgroup versions 1 and 2.
fn cgroup_limit(root: &Path, groups: &str) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| {
            // hierarchy:controllers:path
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let (root, file) = match controllers {
                "" => (root.to_path_buf(), "memory.max"),
                list if list.split(',').any(|name| name == "memory") => {
                    (root.join("memory"), "memory.limit_in_bytes")
                }
                _ => return None,
            };
            let own = Path::new(path.trim_start_matches('/'));
            own.ancestors()
                .filter_map(|folder| limit_of(&root.join(folder).join(file)))
                .min()
        })
        .min()
}

/// The bytes that a limit file states; `None` for "max", and for version 1's "no limit" near 2^63.
fn limit_of(file: &Path) -> Option<u64> {
    let bytes: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

/// Version of a library that was left out when this program was built.
#[cfg(not(all(feature = "torch", feature = "openslide")))]
const NOT_BUILT: &str = "not in this build";

/// The libtorch in use.
#[cfg(not(feature = "torch"))]
pub fn libtorch() -> Library {
    Library {
        version: NOT_BUILT.into(),
        path: None,
    }
}

/// The libtorch in use.
#[cfg(feature = "torch")]
pub fn libtorch() -> Library {
    // A call into libtorch, so that the linker cannot leave it out.
    let _ = tch::get_num_threads();
    let path = loaded_library("libtorch_cpu.so");
    let version = path
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::parent)
        .and_then(libtorch_version);
    Library {
        version: version.unwrap_or_else(|| "2.11.0 (as built)".into()),
        path,
    }
}

/// The version in a libtorch folder: `build-version` of an archive, `version.py` of a wheel.
#[cfg(feature = "torch")]
fn libtorch_version(folder: &Path) -> Option<String> {
    if let Ok(version) = fs::read_to_string(folder.join("build-version")) {
        return Some(version.trim().to_string());
    }
    let python = fs::read_to_string(folder.join("version.py")).ok()?;
    let line = python
        .lines()
        .find(|line| line.starts_with("__version__"))?;
    Some(line.split(['\'', '"']).nth(1)?.to_string())
}

/// The OpenSlide in use.
#[cfg(not(feature = "openslide"))]
pub fn openslide() -> Library {
    Library {
        version: NOT_BUILT.into(),
        path: None,
    }
}

/// The OpenSlide in use.
#[cfg(feature = "openslide")]
pub fn openslide() -> Library {
    let version = openslide_rs::OpenSlide::version();
    Library {
        version: version.unwrap_or_else(|error| format!("unknown ({error})")),
        path: loaded_library("libopenslide.so"),
    }
}

/// Path of a shared library that this process has loaded, by the start of its file name.
pub fn loaded_library(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let path = Path::new(line.get(line.find('/')?..)?);
        let file = path.file_name()?.to_str()?;
        file.starts_with(name).then(|| path.to_path_buf())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_cgroup_limit_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        let put = |file: &str, text: &str| {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("slurm/job_1/memory.max", "4294967296\n");
        put("slurm/job_1/step_0/memory.max", "max\n");
        put("slurm/memory.max", "8589934592\n");
        assert_eq!(
            cgroup_limit(root, "0::/slurm/job_1/step_0\n"),
            Some(4 << 30)
        );
        put("memory/docker/abc/memory.limit_in_bytes", "1073741824\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(
            cgroup_limit(root, "9:cpu:/x\n4:memory:/docker/abc\n0::/\n"),
            Some(1 << 30)
        );
        assert_eq!(cgroup_limit(root, "4:memory:/elsewhere\n"), None);
        assert_eq!(cgroup_limit(root, "nonsense\n"), None);
    }

    #[test]
    fn a_job_has_what_its_scheduler_gave_it() {
        let with = |variables: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            }
        };
        assert_eq!(job_cores(with(&[("SLURM_CPUS_PER_TASK", "8")])), Some(8));
        assert_eq!(job_cores(with(&[("NSLOTS", "4")])), Some(4));
        assert_eq!(job_cores(with(&[("NCPUS", "0")])), None);
        assert_eq!(job_cores(with(&[("SLURM_CPUS_PER_TASK", "")])), None);
        let memory = |variables| job_memory_bytes(with(variables));
        assert_eq!(
            memory(&[("SLURM_MEM_PER_NODE", "32000")]),
            Some(32000 << 20)
        );
        assert_eq!(memory(&[("SLURM_MEM_PER_NODE", "0")]), None);
        let by_cpu = &[("SLURM_MEM_PER_CPU", "2000"), ("SLURM_CPUS_ON_NODE", "4")];
        assert_eq!(memory(by_cpu), Some(8000 << 20));
        assert_eq!(memory(&[("SLURM_MEM_PER_CPU", "2000")]), None);
    }

    #[test]
    #[cfg(feature = "torch")]
    fn libtorch_states_its_version_in_two_ways() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(libtorch_version(scratch.path()), None);
        fs::write(
            scratch.path().join("version.py"),
            "from x import y\n__version__ = '2.11.0+cu130'\n",
        )
        .unwrap();
        assert_eq!(
            libtorch_version(scratch.path()).as_deref(),
            Some("2.11.0+cu130")
        );
        fs::write(scratch.path().join("build-version"), "2.11.0+cpu\n").unwrap();
        assert_eq!(
            libtorch_version(scratch.path()).as_deref(),
            Some("2.11.0+cpu")
        );
    }
}
