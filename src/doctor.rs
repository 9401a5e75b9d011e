//! What this machine has, and what would make it faster.
//!
//! In: nothing but the machine. Out: a [`Doctor`] to print or to serialise. Changes nothing, needs
//! no slide and never fails: a fact that cannot be found out is reported as unknown.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use crate::machine::{self, Cpu, Library, Memory, field};
use crate::model::{ModelSpec, device, library};

/// Everything that `doctor` shows.
#[derive(Debug, Clone, Serialize)]
pub struct Doctor {
    pub version: &'static str,
    pub cpu: Cpu,
    pub memory: Memory,
    pub libtorch: Library,
    pub openslide: Library,
    pub cuda: Cuda,
    pub embedded_model: Option<EmbeddedModel>,
    /// Sentences, each of which names what to do.
    pub hints: Vec<String>,
}

/// The GPUs.
#[derive(Debug, Clone, Serialize)]
pub struct Cuda {
    /// Usable GPUs.
    pub devices: Vec<String>,
    /// Why no GPU can be used.
    pub reason: Option<String>,
}

/// The model in the binary.
#[derive(Debug, Clone, Serialize)]
pub struct EmbeddedModel {
    pub name: String,
    pub architecture: &'static str,
    /// µm per proc px.
    pub mpp: f64,
    pub types: Vec<String>,
}

/// Looks at the machine. Opens CUDA where a driver is present, which can take seconds.
pub fn examine() -> Doctor {
    let mut doctor = Doctor {
        version: env!("CARGO_PKG_VERSION"),
        cpu: machine::cpu(),
        memory: machine::memory(),
        libtorch: machine::libtorch(),
        openslide: machine::openslide(),
        cuda: cuda(),
        embedded_model: library::embedded_spec().map(embedded),
        hints: vec![],
    };
    doctor.hints = hints(&doctor, cfg!(debug_assertions), device::driver_present());
    doctor
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

/// `cuda:0 NVIDIA …`: the driver's name, where CUDA counts GPUs in the driver's order.
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

/// What would make this machine faster, or make it work at all.
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
        .chain(doctor.memory.job_limit_bytes)
        .min();
    hint(
        limit.is_some_and(|bytes| bytes < 2 << 30),
        "less than 2 GiB of memory: ask for more, or lower --memory and --threads".into(),
    );
    let no_gpu = doctor.cuda.devices.is_empty();
    hint(
        no_gpu && driver,
        "there is an NVIDIA driver but CUDA does not work (reason above): \
         a GPU is 50 to 100 times faster than a core"
            .into(),
    );
    hint(
        no_gpu && !driver,
        "no GPU: large networks (hovernet-fast) take minutes a mm² here; \
         the small default model is made for CPUs"
            .into(),
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
        assert!(machine::memory_limit_bytes().unwrap() <= doctor.memory.total_bytes.unwrap());
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
                job_limit_bytes: None,
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
