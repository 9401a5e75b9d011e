//! A cohort on a real Slurm, started for this test alone on the loopback: scripts/cluster_test.sh in its short form.

use std::path::Path;
use std::process::Command;

use crate::harness::Dir;

/// What the test needs; scripts/setup_slurm.sh installs it.
const PROGRAMS: [&str; 5] = ["slurmctld", "slurmd", "sbatch", "munged", "python3"];

#[test]
fn a_cohort_on_a_real_slurm_with_a_kill_and_a_requeue() {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let is_there = |name: &&str| {
        path.split(':')
            .any(|dir| Path::new(dir).join(name).is_file())
    };
    if let Some(missing) = PROGRAMS.iter().find(|name| !is_there(name)) {
        eprintln!(
            "skipped: slurm: no {missing} on this machine: scripts/setup_slurm.sh installs it"
        );
        return;
    }
    let dir = Dir::new();
    let work = dir.path("work");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster_test.sh");
    let run = Command::new(script)
        .args(["--short", env!("CARGO_BIN_EXE_wsi-nuclei")])
        .arg(&work)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}\n{errors}");
    let last = said.lines().last().unwrap_or_default();
    eprintln!("{last}");
    assert!(last.starts_with("cluster-test: passed in"), "{said}");
    assert_eq!(processes_of(&work), Vec::<String>::new());
}

/// Processes that name the folder, by their command lines.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(folder)).collect()
}
