//! `doctor`: what this machine has, and what would make it faster.

use std::fmt::Write;

use crate::doctor::{self, Doctor};
use crate::machine::Library;
use clap::Args;

use super::{Failure, print};

/// What this machine has (CPU, CUDA, libtorch, OpenSlide, memory), and what would make it faster.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[arg(long)]
    json: bool,
}

pub fn main(args: &DoctorArgs) -> Result<(), Failure> {
    let doctor = doctor::examine();
    if args.json {
        let text = serde_json::to_string_pretty(&doctor).map_err(Failure::usage)?;
        return print(&(text + "\n"));
    }
    print(&page(&doctor))
}

fn page(doctor: &Doctor) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<11} {value}");
    };
    let cpu = &doctor.cpu;
    line("wsi-nuclei", doctor.version.to_owned());
    line(
        "CPU",
        format!(
            "{}, {} of {} cores usable, {}",
            cpu.model,
            cpu.usable_cores,
            cpu.cores,
            cpu.instructions.join(" ")
        ),
    );
    let memory = &doctor.memory;
    line(
        "memory",
        format!(
            "{} in all, {} free, limit of the cgroup {}",
            gib(memory.total_bytes),
            gib(memory.available_bytes),
            memory
                .cgroup_limit_bytes
                .map_or("none".into(), |bytes| gib(Some(bytes)))
        ) + &memory.job_limit_bytes.map_or(String::new(), |bytes| {
            format!(", of the job {}", gib(Some(bytes)))
        }),
    );
    line("libtorch", library(&doctor.libtorch));
    line("OpenSlide", library(&doctor.openslide));
    let cuda = match &doctor.cuda.reason {
        Some(reason) => format!("none: {reason}"),
        None => doctor.cuda.devices.join(", "),
    };
    line("CUDA", cuda);
    line(
        "model",
        match &doctor.embedded_model {
            Some(model) => format!(
                "{} ({}, {} µm/px): {}",
                model.name,
                model.architecture,
                model.mpp,
                model.types.join(", ")
            ),
            None => "none in the binary: give --model".into(),
        },
    );
    for hint in &doctor.hints {
        line("hint", hint.clone());
    }
    text
}

fn library(library: &Library) -> String {
    match &library.path {
        Some(path) => format!("{}, {}", library.version, path.display()),
        None => library.version.clone(),
    }
}

fn gib(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".into(), |bytes| {
        format!("{:.1} GiB", bytes as f64 / f64::from(1u32 << 30))
    })
}
