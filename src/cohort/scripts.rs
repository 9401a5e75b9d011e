//! The array scripts of a cohort: Slurm, PBS Pro, LSF, SGE, Kubernetes, AWS Batch.
//!
//! In: how many rows, and what a task needs. Out: the text of each script. An array's element names its row: no script
//! computes one, but for the constant of a chunk where a site's arrays are shorter than the cohort. Never submits.

use super::CohortError;

/// What a task of the cohort needs, as scripts say it.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs {
    /// Elements of the array: as many as rows, or fewer.
    pub tasks: usize,
    /// Elements that run at one time.
    pub at_once: usize,
    pub cpus: u32,
    pub memory_mib: u64,
    pub gpus: u32,
    pub minutes: u64,
    /// The site's longest array (Slurm: MaxArraySize).
    pub max_array: usize,
    pub partition: Option<String>,
    pub account: Option<String>,
    /// Image of a container, for Kubernetes and AWS Batch.
    pub image: String,
    /// The program, as a task finds it.
    pub program: String,
    /// The cohort's folder, as a task finds it.
    pub out: String,
    /// Folder of local disks that slides are copied to first.
    pub stage: Option<String>,
}

/// A script by its file name.
pub type Script = (String, String);

/// A part of an array that a site takes: elements 0..`tasks` are rows `first`...
struct Chunk {
    name: String,
    first: usize,
    tasks: usize,
}

/// All scripts.
///
/// # Errors
/// A folder or program whose name no shell script can hold.
pub fn all(needs: &Needs) -> Result<Vec<Script>, CohortError> {
    for text in [&needs.program, &needs.out].into_iter().chain(&needs.stage) {
        if text.contains(['\n', '\r', '\0']) {
            return Err(CohortError::Usage(format!(
                "{text:?}: holds a line break, which no array script can name: use another folder"
            )));
        }
    }
    let mut scripts = Vec::new();
    let chunks = chunks(needs);
    for chunk in &chunks {
        scripts.push((format!("array{}.sbatch", chunk.name), slurm(needs, chunk)));
        scripts.push((format!("array{}.pbs", chunk.name), pbs(needs, chunk)));
        scripts.push((format!("array{}.lsf", chunk.name), lsf(needs, chunk)));
        scripts.push((format!("array{}.sge", chunk.name), sge(needs, chunk)));
    }
    scripts.push(("merge.sbatch".into(), slurm_merge(needs)));
    scripts.push(("submit-slurm.sh".into(), submit_slurm(&chunks)));
    scripts.push(("job.k8s.yaml".into(), kubernetes(needs)));
    scripts.push(("aws-batch.json".into(), aws_batch(needs)));
    Ok(scripts)
}

fn chunks(needs: &Needs) -> Vec<Chunk> {
    // The largest index is one less than MaxArraySize.
    let longest = needs.max_array.saturating_sub(1).max(1);
    let mut chunks = Vec::new();
    let mut first = 0;
    while first < needs.tasks {
        let tasks = (needs.tasks - first).min(longest);
        let name = match first {
            0 => String::new(),
            _ => format!("-{}", chunks.len()),
        };
        chunks.push(Chunk { name, first, tasks });
        first += tasks;
    }
    chunks
}

/// Text as one word of a POSIX shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%=".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// The command of a task.
fn run_command(needs: &Needs, first: usize) -> String {
    let mut command = format!(
        "{} cohort run {}",
        quoted(&needs.program),
        quoted(&needs.out)
    );
    if first > 0 {
        command.push_str(&format!(" --first-row {first}"));
    }
    if let Some(stage) = &needs.stage {
        // The site's own variable may stand in it, as in $TMPDIR.
        command.push_str(&format!(" --stage \"{}\"", stage.replace('"', "\\\"")));
    }
    command
}

fn merge_command(needs: &Needs) -> String {
    format!(
        "{} cohort merge {}",
        quoted(&needs.program),
        quoted(&needs.out)
    )
}

/// `8:30:00`.
fn hours(minutes: u64) -> String {
    format!("{}:{:02}:00", minutes / 60, minutes % 60)
}

fn slurm(needs: &Needs, chunk: &Chunk) -> String {
    let logs = format!("{}/.cohort/slurm-%A_%a.out", needs.out);
    let mut head = format!(
        "#!/bin/bash\n#SBATCH --job-name=wsi-nuclei\n#SBATCH --array=0-{}%{}\n#SBATCH --cpus-per-task={}\n\
         #SBATCH --mem={}M\n#SBATCH --time={}\n",
        chunk.tasks - 1,
        needs.at_once.max(1),
        needs.cpus,
        needs.memory_mib,
        hours(needs.minutes)
    );
    if needs.gpus > 0 {
        head.push_str(&format!("#SBATCH --gres=gpu:{}\n", needs.gpus));
    }
    for (name, value) in [("partition", &needs.partition), ("account", &needs.account)] {
        if let Some(value) = value {
            head.push_str(&format!("#SBATCH --{name}={value}\n"));
        }
    }
    // sbatch takes what is quoted as one word.
    head.push_str(&format!(
        "#SBATCH --output=\"{logs}\"\n#SBATCH --open-mode=append\n#SBATCH --requeue\n#SBATCH --signal=B:USR1@120\n"
    ));
    format!(
        "{head}
# Two minutes before the time limit Slurm sends USR1 to this shell. The task writes its checkpoint and ends with 75; then
# this element goes back into the queue. A TERM (scancel, requeue, preemption) is handed on; what follows it is Slurm's affair.
requeue=no
{} &
task=$!
trap 'requeue=yes; kill -USR1 \"$task\" 2>/dev/null' USR1
trap 'kill -TERM \"$task\" 2>/dev/null' TERM
# A trapped signal ends `wait` early: wait again until the task is gone.
while :; do
    wait \"$task\"
    code=$?
    kill -0 \"$task\" 2>/dev/null || break
done
if [ \"$requeue\" = yes ] && [ \"$code\" -eq 75 ]; then
    element=$SLURM_JOB_ID
    [ -z \"${{SLURM_ARRAY_JOB_ID:-}}\" ] || element=${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}
    scontrol requeue \"$element\"
fi
exit \"$code\"
",
        run_command(needs, chunk.first)
    )
}

fn slurm_merge(needs: &Needs) -> String {
    let mut head = format!(
        "#!/bin/bash\n#SBATCH --job-name=wsi-nuclei-merge\n#SBATCH --cpus-per-task=1\n#SBATCH --mem=4G\n\
         #SBATCH --time=2:00:00\n#SBATCH --output=\"{}/.cohort/slurm-merge-%j.out\"\n",
        needs.out
    );
    for (name, value) in [("partition", &needs.partition), ("account", &needs.account)] {
        if let Some(value) = value {
            head.push_str(&format!("#SBATCH --{name}={value}\n"));
        }
    }
    format!("{head}\n{}\n", merge_command(needs))
}

fn submit_slurm(chunks: &[Chunk]) -> String {
    let mut text = String::from(
        "#!/bin/bash\n# Submits the array and the merge. afterany: afterok would never run if one slide failed.\n\
         set -eu\ncd \"$(dirname \"$0\")\"\njobs=\n",
    );
    for chunk in chunks {
        text.push_str(&format!(
            "jobs=$jobs:$(sbatch --parsable \"$@\" array{}.sbatch | cut -d';' -f1)\n",
            chunk.name
        ));
    }
    text.push_str(
        "merge=$(sbatch --parsable --dependency=\"afterany$jobs\" merge.sbatch | cut -d';' -f1)\n\
         echo \"arrays ${jobs#:}, merge $merge\"\n",
    );
    text
}

fn pbs(needs: &Needs, chunk: &Chunk) -> String {
    let gpus = match needs.gpus {
        0 => String::new(),
        n => format!(":ngpus={n}"),
    };
    let mut head = format!(
        "#!/bin/bash\n#PBS -N wsi-nuclei\n#PBS -l select=1:ncpus={}:mem={}mb{gpus}\n#PBS -l walltime={}\n#PBS -r y\n#PBS -j oe\n",
        needs.cpus,
        needs.memory_mib,
        hours(needs.minutes)
    );
    // PBS knows no array of one element.
    let row = match chunk.tasks {
        1 => format!(" --row {}", chunk.first),
        tasks => {
            head.push_str(&format!(
                "#PBS -J 0-{}%{}\n",
                tasks - 1,
                needs.at_once.max(1)
            ));
            String::new()
        }
    };
    for (flag, value) in [("-q", &needs.partition), ("-A", &needs.account)] {
        if let Some(value) = value {
            head.push_str(&format!("#PBS {flag} {value}\n"));
        }
    }
    format!(
        "{head}\n# Merge after it: qsub -W depend=afterany:JOB, with: {}\nexec {}{row}\n",
        merge_command(needs),
        run_command(needs, chunk.first)
    )
}

fn lsf(needs: &Needs, chunk: &Chunk) -> String {
    let mut head = format!(
        "#!/bin/bash\n#BSUB -J \"wsi-nuclei[1-{}]%{}\"\n#BSUB -n {}\n#BSUB -R \"span[hosts=1]\"\n#BSUB -M {}MB\n\
         #BSUB -W {}\n#BSUB -r\n#BSUB -wa USR1 -wt 2\n#BSUB -Q \"75\"\n",
        chunk.tasks,
        needs.at_once.max(1),
        needs.cpus,
        needs.memory_mib,
        needs.minutes
    );
    if needs.gpus > 0 {
        head.push_str(&format!("#BSUB -gpu \"num={}\"\n", needs.gpus));
    }
    for (flag, value) in [("-q", &needs.partition), ("-P", &needs.account)] {
        if let Some(value) = value {
            head.push_str(&format!("#BSUB {flag} {value}\n"));
        }
    }
    format!(
        "{head}\n# Index 1 is row {}. Submit with: bsub < this file. Merge after it: bsub -w 'ended(JOB)' {}\nexec {}\n",
        chunk.first,
        merge_command(needs),
        run_command(needs, chunk.first)
    )
}

fn sge(needs: &Needs, chunk: &Chunk) -> String {
    let mut head = format!(
        "#!/bin/bash\n#$ -N wsi-nuclei\n#$ -S /bin/bash\n#$ -t 1-{}\n#$ -tc {}\n#$ -pe smp {}\n#$ -l h_vmem={}M\n\
         #$ -l h_rt={}\n#$ -l s_rt={}\n#$ -r y\n#$ -j y\n",
        chunk.tasks,
        needs.at_once.max(1),
        needs.cpus,
        needs.memory_mib.div_ceil(u64::from(needs.cpus.max(1))),
        hours(needs.minutes),
        // The soft limit sends USR1; -notify would send USR2, which ends a process that does not expect it.
        hours(needs.minutes.saturating_sub(2).max(1))
    );
    if needs.gpus > 0 {
        head.push_str(&format!("#$ -l gpu={}\n", needs.gpus));
    }
    for (flag, value) in [("-q", &needs.partition), ("-P", &needs.account)] {
        if let Some(value) = value {
            head.push_str(&format!("#$ {flag} {value}\n"));
        }
    }
    // SGE starts a job again that ends with 99.
    format!(
        "{head}\n# Index 1 is row {}. Merge after it: qsub -hold_jid wsi-nuclei, with: {}\nexec {} --requeue-exit-code 99\n",
        chunk.first,
        merge_command(needs),
        run_command(needs, chunk.first)
    )
}

/// Text as a JSON string, which is a YAML string as well.
fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn arguments(needs: &Needs) -> String {
    let mut words = vec!["cohort", "run", &needs.out];
    if let Some(stage) = &needs.stage {
        words.extend(["--stage", stage]);
    }
    let words: Vec<String> = words.into_iter().map(json_text).collect();
    words.join(", ")
}

fn kubernetes(needs: &Needs) -> String {
    let gpu = match needs.gpus {
        0 => String::new(),
        n => format!(", nvidia.com/gpu: {n}"),
    };
    format!(
        "# kubectl apply -f this file. The claim `cohort` is a volume that all pods may write (ReadWriteMany), mounted where
# the plan was made.
apiVersion: batch/v1
kind: Job
metadata:
  name: wsi-nuclei
spec:
  completionMode: Indexed
  completions: {}
  parallelism: {}
  backoffLimitPerIndex: 3
  maxFailedIndexes: {}
  podFailurePolicy:
    rules:
      # 75: stopped on request. The index is started again and goes on from its checkpoint.
      - action: Ignore
        onExitCodes: {{operator: In, values: [75]}}
      # 1, 2, 3: slides failed; another try would fail the same way.
      - action: FailIndex
        onExitCodes: {{operator: In, values: [1, 2, 3]}}
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 30
      containers:
        - name: wsi-nuclei
          image: {}
          command: [{}]
          args: [{}]
          resources:
            requests: {{cpu: {}, memory: {}Mi}}
            limits: {{memory: {}Mi{gpu}}}
          volumeMounts:
            - {{name: cohort, mountPath: {}}}
      volumes:
        - name: cohort
          persistentVolumeClaim: {{claimName: cohort}}
",
        needs.tasks,
        needs.at_once.max(1),
        needs.tasks,
        json_text(&needs.image),
        json_text(&needs.program),
        arguments(needs),
        needs.cpus,
        needs.memory_mib,
        needs.memory_mib,
        json_text(&needs.out)
    )
}

/// The input of `aws batch submit-job --cli-input-json`. AWS takes 2 to 10,000 elements.
fn aws_batch(needs: &Needs) -> String {
    let mut requirements = vec![
        format!("{{\"type\": \"VCPU\", \"value\": \"{}\"}}", needs.cpus),
        format!(
            "{{\"type\": \"MEMORY\", \"value\": \"{}\"}}",
            needs.memory_mib
        ),
    ];
    if needs.gpus > 0 {
        requirements.push(format!(
            "{{\"type\": \"GPU\", \"value\": \"{}\"}}",
            needs.gpus
        ));
    }
    let queue = needs.partition.as_deref().unwrap_or("wsi-nuclei");
    format!(
        "{{
  \"jobName\": \"wsi-nuclei\",
  \"jobQueue\": {},
  \"jobDefinition\": \"wsi-nuclei\",
  \"arrayProperties\": {{\"size\": {}}},
  \"retryStrategy\": {{
    \"attempts\": 5,
    \"evaluateOnExit\": [
      {{\"onExitCode\": \"75\", \"action\": \"RETRY\"}},
      {{\"onStatusReason\": \"Host EC2*\", \"action\": \"RETRY\"}},
      {{\"onReason\": \"*\", \"action\": \"EXIT\"}}
    ]
  }},
  \"timeout\": {{\"attemptDurationSeconds\": {}}},
  \"containerOverrides\": {{
    \"command\": [{}, {}],
    \"resourceRequirements\": [{}]
  }}
}}
",
        json_text(queue),
        needs.tasks.clamp(2, 10_000),
        needs.minutes * 60,
        json_text(&needs.program),
        arguments(needs),
        requirements.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(tasks: usize) -> Needs {
        Needs {
            tasks,
            at_once: 20,
            cpus: 8,
            memory_mib: 32000,
            gpus: 1,
            minutes: 510,
            max_array: 1001,
            partition: None,
            account: Some("path".into()),
            image: "ghcr.io/x/wsi-nuclei".into(),
            program: "wsi-nuclei".into(),
            out: "/data/it's here".into(),
            stage: Some("$TMPDIR".into()),
        }
    }

    fn script(needs: &Needs, name: &str) -> String {
        let all = all(needs).unwrap();
        let found = all.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    }

    #[test]
    fn an_array_has_an_element_a_row_and_the_sites_length() {
        let array = script(&needs(500), "array.sbatch");
        assert!(array.contains("#SBATCH --array=0-499%20\n"));
        assert!(array.contains("--time=8:30:00\n") && array.contains("--gres=gpu:1\n"));
        assert!(!array.contains("--first-row"));
        let long = needs(2500);
        let sizes: Vec<bool> = ["array.sbatch", "array-1.sbatch", "array-2.sbatch"]
            .iter()
            .zip(["0-999%", "0-999%", "0-499%"])
            .map(|(name, range)| script(&long, name).contains(range))
            .collect();
        assert_eq!(sizes, [true; 3]);
        assert!(script(&long, "array-2.sbatch").contains(" --first-row 2000"));
        assert!(script(&long, "array-2.sge").contains("-t 1-500\n"));
    }

    #[test]
    fn shells_read_what_was_meant() {
        assert_eq!(quoted("/a/b-1.2"), "/a/b-1.2");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        for (name, text) in all(&needs(3)).unwrap() {
            if name.ends_with(".yaml") || name.ends_with(".json") {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("script");
            std::fs::write(&path, &text).unwrap();
            let checked = std::process::Command::new("bash")
                .arg("-n")
                .arg(&path)
                .status();
            assert!(checked.unwrap().success(), "{name}\n{text}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&script(&needs(3), "aws-batch.json")).unwrap();
        assert_eq!(json["containerOverrides"]["command"][3], "/data/it's here");
        assert_eq!(json["arrayProperties"]["size"], 3);
    }

    #[test]
    fn a_single_row_is_no_array_where_there_are_none_of_one() {
        let one = script(&needs(1), "array.pbs");
        assert!(!one.contains("-J ") && one.contains(" --row 0"));
        assert!(script(&needs(1), "array.sbatch").contains("--array=0-0%"));
    }
}
