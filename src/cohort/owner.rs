//! Who works on a row: host, process, job; and whether that one is certainly dead.
//!
//! In: /proc and the environment. Out: an [`Owner`]. Never guesses: an owner on another machine is alive until its
//! claim has not been touched for too long.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process that may own a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of the machine, for people.
    pub host: String,
    /// Number of the process there.
    pub pid: u32,
    /// The machine's boot and its namespace of processes: numbers of one mean nothing in another.
    pub processes_of: String,
    /// When the process began, in ticks since the boot: numbers of processes are used again.
    pub began_ticks: u64,
    /// The scheduler's name of the job, with its array index.
    pub job: Option<String>,
    /// How often the scheduler has started this job again.
    pub attempt: u32,
}

/// Variables that name a job; where it is an array, those of its job and its index.
const JOBS: [(&str, &str); 8] = [
    ("slurm", "SLURM_JOB_ID"),
    ("pbs", "PBS_JOBID"),
    ("lsf", "LSB_JOBID"),
    ("aws", "AWS_BATCH_JOB_ID"),
    ("google", "BATCH_TASK_ID"),
    ("fujitsu", "PJM_JOBID"),
    ("kubernetes", "JOB_COMPLETION_INDEX"),
    ("sge", "JOB_ID"),
];
/// Variables that count how often a job was started again.
const ATTEMPTS: [&str; 2] = ["SLURM_RESTART_COUNT", "AWS_BATCH_JOB_ATTEMPT"];

impl Owner {
    /// This process. `lookup` gives a variable of the environment.
    pub fn here(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let pid = std::process::id();
        let said = |name: &str| lookup(name).filter(|text| !text.is_empty());
        let array = said("SLURM_ARRAY_JOB_ID").zip(said("SLURM_ARRAY_TASK_ID"));
        let job = match array {
            Some((job, task)) => Some(format!("slurm {job}_{task}")),
            None => JOBS
                .iter()
                .find_map(|(kind, name)| said(name).map(|id| format!("{kind} {id}"))),
        };
        let attempt = ATTEMPTS.iter().find_map(|name| said(name)?.parse().ok());
        Self {
            host: host(),
            pid,
            processes_of: processes_of(),
            began_ticks: state_of(pid).map_or(0, |(began, _)| began),
            job,
            attempt: attempt.unwrap_or(0),
        }
    }

    /// Whether `self` has certainly ended, as `here` can tell: its process is gone from this machine, or the scheduler
    /// has started its job again.
    pub fn is_dead(&self, here: &Owner) -> bool {
        let same_job = self.job.is_some() && self.job == here.job;
        if same_job && self.attempt < here.attempt {
            return true;
        }
        let visible = !self.processes_of.is_empty() && self.processes_of == here.processes_of;
        visible && state_of(self.pid).is_none_or(|(began, gone)| gone || began != self.began_ticks)
    }

    /// For people: `node7:4711 (slurm 12_3)`.
    pub fn name(&self) -> String {
        match &self.job {
            Some(job) => format!("{}:{} ({job})", self.host, self.pid),
            None => format!("{}:{}", self.host, self.pid),
        }
    }
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(128).collect();
    match name.is_empty() {
        true => "unknown".into(),
        false => name,
    }
}

fn processes_of() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    match (boot.trim(), space.to_str()) {
        ("", _) | (_, None | Some("")) => String::new(),
        (boot, Some(space)) => format!("{boot} {space}"),
    }
}

/// When a process began, and whether it is a zombie; `None`: there is no such process.
fn state_of(pid: u32) -> Option<(u64, bool)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from its end: state is field 3, starttime field 22.
    let (_, behind) = text.rsplit_once(')')?;
    let mut fields = behind.split_whitespace();
    let state = fields.next()?;
    let began = fields.nth(18)?.parse().ok()?;
    Some((began, matches!(state, "Z" | "X")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Owner {
        Owner::here(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn jobs_have_their_schedulers_name() {
        let array = [
            ("SLURM_JOB_ID", "14"),
            ("SLURM_ARRAY_JOB_ID", "12"),
            ("SLURM_ARRAY_TASK_ID", "3"),
            ("SLURM_RESTART_COUNT", "2"),
        ];
        let owner = with(&array);
        assert_eq!(owner.job.as_deref(), Some("slurm 12_3"));
        assert_eq!(owner.attempt, 2);
        assert_eq!(with(&[("JOB_ID", "9")]).job.as_deref(), Some("sge 9"));
        assert_eq!(with(&[]).job, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_owner_is_dead_where_that_is_certain() {
        let here = with(&[]);
        assert!(!here.is_dead(&here));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let child_owner = Owner {
            pid: child.id(),
            began_ticks: state_of(child.id()).unwrap().0,
            ..here.clone()
        };
        assert!(!child_owner.is_dead(&here));
        let reused = Owner {
            began_ticks: child_owner.began_ticks + 1,
            ..child_owner.clone()
        };
        assert!(reused.is_dead(&here));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(child_owner.is_dead(&here));
        let elsewhere = Owner {
            processes_of: "another machine".into(),
            ..child_owner
        };
        assert!(!elsewhere.is_dead(&here));
    }

    #[test]
    fn a_job_that_was_started_again_has_left_its_claims() {
        let first = Owner {
            processes_of: "another machine".into(),
            ..with(&[("SLURM_JOB_ID", "7")])
        };
        let second = with(&[("SLURM_JOB_ID", "7"), ("SLURM_RESTART_COUNT", "1")]);
        assert!(first.is_dead(&second));
        assert!(!first.is_dead(&with(&[
            ("SLURM_JOB_ID", "8"),
            ("SLURM_RESTART_COUNT", "1")
        ])));
    }
}
