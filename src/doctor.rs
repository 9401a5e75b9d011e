//! What this machine has, and what would make it faster.
//!
//! In: nothing but the machine. Out: a [`Doctor`] to print or to serialise. Changes nothing, needs no slide and never
//! fails: what cannot be found out is said so.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::{ModelSpec, device, library};

/// Everything `doctor` tells.
#[derive(Debug, Clone, Serialize)]
pub struct Doctor {
    pub version: &'static str,
    pub cpu: Cpu,
    pub memory: Memory,
    pub libtorch: Library,
    pub openslide: Library,
    pub cuda: Cuda,
    /// Name, µm/px and types of the model in the binary.
    pub embedded_model: Option<EmbeddedModel>,
    /// Each a sentence that names what to do.
    pub hints: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Cpu {
    pub model: String,
    /// Logical cores of the machine.
    pub cores: usize,
    /// Cores that this process may use: affinity and cgroup quota counted in.
    pub usable_cores: usize,
    /// Vector instructions that matter here, best last.
    pub instructions: Vec<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    pub total_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
    /// The least limit of the cgroups that this process is in (container, Slurm job).
    pub cgroup_limit_bytes: Option<u64>,
}

/// A shared library in use.
#[derive(Debug, Clone, Serialize)]
pub struct Library {
    pub version: String,
    pub path: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Cuda {
    /// Usable GPUs.
    pub devices: Vec<String>,
    /// Why there are none.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct EmbeddedModel {
    pub name: String,
    pub architecture: &'static str,
    pub mpp: f64,
    pub types: Vec<String>,
}

/// Looks at the machine. Opens CUDA where a driver is present, which can take seconds.
pub fn examine() -> Doctor {
    let mut doctor = Doctor {
        version: env!("CARGO_PKG_VERSION"),
        cpu: cpu(),
        memory: memory(),
        libtorch: libtorch(),
        openslide: openslide(),
        cuda: cuda(),
        embedded_model: library::embedded_spec().map(embedded),
        hints: vec![],
    };
    doctor.hints = hints(&doctor, cfg!(debug_assertions), device::driver_present());
    doctor
}

/// The memory that this process can count on, bytes: the cgroup's limit or the machine's total, whichever is less.
pub fn memory_limit_bytes() -> Option<u64> {
    let memory = memory();
    memory
        .total_bytes
        .into_iter()
        .chain(memory.cgroup_limit_bytes)
        .min()
}

/// What the last bits of a result depend on: kind of device, instruction set, libtorch, OpenSlide. Recorded a tile.
pub fn numerics(device: tch::Device) -> String {
    let device = match device {
        tch::Device::Cpu => {
            let instructions = instructions();
            let widest = ["avx512f", "avx2"]
                .into_iter()
                .find(|name| instructions.contains(name));
            format!("cpu {}", widest.unwrap_or(std::env::consts::ARCH))
        }
        _ => "cuda".into(),
    };
    format!(
        "{device}; libtorch {}; OpenSlide {}",
        libtorch().version,
        openslide().version
    )
}

fn cpu() -> Cpu {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let usable_cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    Cpu {
        model: field(&info, "model name").unwrap_or("unknown").to_string(),
        cores: cores.max(usable_cores),
        usable_cores,
        instructions: instructions(),
    }
}

/// The value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
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

fn memory() -> Memory {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Memory {
        total_bytes: kib(&info, "MemTotal"),
        available_bytes: kib(&info, "MemAvailable"),
        cgroup_limit_bytes: cgroup_limit(Path::new("/sys/fs/cgroup"), &groups),
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

/// The least memory limit on the way from this process's cgroup up to the root, versions 1 and 2.
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

/// A limit file's bytes; `None` for "max" and for version 1's "no limit" near 2^63.
fn limit_of(file: &Path) -> Option<u64> {
    let bytes: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

/// The libtorch in use.
pub fn libtorch() -> Library {
    // A call into libtorch, so that the linker cannot leave it out.
    let _ = tch::get_num_threads();
    let path = device::loaded_library("libtorch_cpu.so");
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

/// The version that a libtorch folder states: `build-version` in an archive, `version.py` in a wheel.
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
pub fn openslide() -> Library {
    let version = openslide_rs::OpenSlide::version();
    Library {
        version: version.unwrap_or_else(|error| format!("unknown ({error})")),
        path: device::loaded_library("libopenslide.so"),
    }
}

fn cuda() -> Cuda {
    match device::cuda() {
        Ok(count) => Cuda {
            devices: (0..*count).map(gpu_name).collect(),
            reason: (*count == 0)
                .then(|| "CUDA works but sees no GPU: check CUDA_VISIBLE_DEVICES".into()),
        },
        Err(reason) => Cuda {
            devices: vec![],
            reason: Some(reason.clone()),
        },
    }
}

/// `cuda:0 NVIDIA …`, the name as the driver tells it where the order is the driver's own.
fn gpu_name(index: usize) -> String {
    let visible = std::env::var_os("CUDA_VISIBLE_DEVICES").is_some();
    let name = (!visible)
        .then(|| driver_names().into_iter().nth(index))
        .flatten();
    format!("cuda:{index} {}", name.unwrap_or_default())
        .trim()
        .to_string()
}

fn driver_names() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/driver/nvidia/gpus") else {
        return vec![];
    };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort();
    folders
        .iter()
        .filter_map(|folder| {
            let text = fs::read_to_string(folder.join("information")).ok()?;
            field(&text, "Model").map(str::to_string)
        })
        .collect()
}

fn embedded(spec: ModelSpec) -> EmbeddedModel {
    EmbeddedModel {
        architecture: spec.architecture.name(),
        mpp: spec.mpp,
        types: spec.types.into_iter().map(|info| info.name).collect(),
        name: spec.name,
    }
}

/// What would make this machine faster, or lets it do its work at all.
fn hints(doctor: &Doctor, debug_build: bool, driver: bool) -> Vec<String> {
    let mut hints = Vec::new();
    let mut hint = |condition: bool, text: String| {
        if condition {
            hints.push(text);
        }
    };
    hint(
        debug_build,
        "this is a debug build, several times slower: build with `make build`".into(),
    );
    let (usable, cores) = (doctor.cpu.usable_cores, doctor.cpu.cores);
    hint(
        usable < cores,
        format!(
            "only {usable} of {cores} cores may be used: ask the scheduler or container for more CPUs"
        ),
    );
    let x86 = cfg!(target_arch = "x86_64");
    hint(
        x86 && !doctor.cpu.instructions.contains(&"avx2"),
        "the CPU has no AVX2: networks run several times slower; choose another node or CPU type"
            .into(),
    );
    let limit = doctor
        .memory
        .total_bytes
        .into_iter()
        .chain(doctor.memory.cgroup_limit_bytes)
        .min();
    hint(
        limit.is_some_and(|bytes| bytes < 2 << 30),
        "less than 2 GiB of memory: ask for more, or lower --memory and --threads".into(),
    );
    let no_gpu = doctor.cuda.devices.is_empty();
    hint(
        no_gpu && driver,
        "there is an NVIDIA driver but CUDA does not work (reason above): a GPU is 50 to 100 times faster than a core".into(),
    );
    hint(
        no_gpu && !driver,
        "no GPU: large networks (hovernet-fast) take minutes a mm² here; the small default model is made for CPUs".into(),
    );
    hint(
        doctor.embedded_model.is_none(),
        "no model is embedded in this binary: name one with --model".into(),
    );
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let doctor = examine();
        assert!(doctor.cpu.usable_cores >= 1 && doctor.cpu.usable_cores <= doctor.cpu.cores);
        assert!(doctor.memory.total_bytes.unwrap() > 1 << 28);
        assert!(memory_limit_bytes().unwrap() <= doctor.memory.total_bytes.unwrap());
        assert!(
            doctor.libtorch.version.starts_with("2."),
            "{}",
            doctor.libtorch.version
        );
        assert!(
            doctor.openslide.version.starts_with("4."),
            "{}",
            doctor.openslide.version
        );
        assert!(doctor.libtorch.path.as_ref().unwrap().exists());
        assert_eq!(doctor.cuda.devices.is_empty(), doctor.cuda.reason.is_some());
        let json = serde_json::to_value(&doctor).unwrap();
        assert!(json["cpu"]["model"].is_string());
    }

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

    #[test]
    fn hints_follow_from_what_there_is() {
        let doctor = Doctor {
            cpu: Cpu {
                model: "x".into(),
                cores: 8,
                usable_cores: 2,
                instructions: vec!["sse4.2"],
            },
            memory: Memory {
                total_bytes: Some(64 << 30),
                available_bytes: None,
                cgroup_limit_bytes: Some(1 << 30),
            },
            cuda: Cuda {
                devices: vec![],
                reason: Some("broken".into()),
            },
            embedded_model: None,
            ..examine()
        };
        let all = hints(&doctor, true, true).join("\n");
        for part in [
            "debug build",
            "2 of 8 cores",
            "less than 2 GiB",
            "NVIDIA driver",
            "--model",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
        let fine = Doctor {
            cpu: Cpu {
                cores: 2,
                instructions: vec!["avx2"],
                ..doctor.cpu.clone()
            },
            memory: Memory {
                cgroup_limit_bytes: None,
                ..doctor.memory.clone()
            },
            cuda: Cuda {
                devices: vec!["cuda:0".into()],
                reason: None,
            },
            embedded_model: Some(embedded(crate::model::analytic::spec())),
            ..doctor
        };
        assert!(hints(&fine, false, true).is_empty());
    }
}
