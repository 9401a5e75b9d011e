//! `cohort plan SLIDES… -o OUT`: numbers the rows, says what they would take, writes the array scripts.

use std::path::{Path, PathBuf};

use crate::cohort::cost::{self, Bill};
use crate::cohort::plan::{self, Asked, Cohort};
use crate::cohort::scripts::{self, Needs};
use crate::cohort::settings::{ROWS_SETTINGS, flag_text};
use crate::cohort::{CohortError, Layout};
use crate::model::DeviceChoice;
use crate::nuclei::PostprocRules;
use crate::run::{self, RunConfig, SlideConfig, inputs};
use crate::store::atomic;
use clap::Args;

use super::cohort::{cores, say, worker_command};
use super::settings::{self, Settings};
use super::{Failure, print, signals};

/// Number the slides once and for all, estimate each one's cost, and write array scripts for schedulers.
#[derive(Debug, Args)]
#[command(
    mut_arg("restart", |arg| arg.hide(true)),
    mut_arg("shard", |arg| arg.hide(true)),
    mut_arg("stage", |arg| arg.help("Let tasks copy slides to this folder of a local disk first; auto: the scheduler's ($SLURM_TMPDIR or $TMPDIR)")),
    mut_arg("retries", |arg| arg.hide(true)),
    mut_arg("requeue_exit_code", |arg| arg.hide(true)),
    mut_arg("log", |arg| arg.hide(true))
)]
pub struct PlanArgs {
    /// Slides, folders, patterns in quotes ('/data/*.svs'), or one manifest (CSV)
    #[arg(value_name = "SLIDES", required = true)]
    slides: Vec<PathBuf>,
    /// Look into folders of folders
    #[arg(short, long)]
    recursive: bool,
    /// Only say what the cohort would take; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Elements of the array [default: one a row, or a part of one]; tasks go on with what is free
    #[arg(long, value_name = "N", help_heading = "Scripts")]
    tasks: Option<usize>,
    /// Elements that run at one time
    #[arg(long, value_name = "K", default_value_t = 20, help_heading = "Scripts")]
    at_once: usize,
    /// CPUs a task [default: 8, or the cores of this machine where it has fewer]
    #[arg(long, value_name = "N", help_heading = "Scripts")]
    cpus: Option<u32>,
    /// Memory a task, MiB [default: what the largest slide needs]
    #[arg(long, value_name = "MIB", help_heading = "Scripts")]
    memory_mib: Option<u64>,
    /// GPUs a task [default: 1, or 0 with --device cpu]
    #[arg(long, value_name = "N", help_heading = "Scripts")]
    gpus: Option<u32>,
    /// Time limit of a task, minutes [default: three times the longest slide, at least 60]
    #[arg(long, value_name = "MIN", help_heading = "Scripts")]
    minutes: Option<u64>,
    /// The site's longest array (Slurm's MaxArraySize: scontrol show config)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1001,
        help_heading = "Scripts"
    )]
    max_array: usize,
    /// Partition or queue
    #[arg(long, help_heading = "Scripts")]
    partition: Option<String>,
    /// Account or project
    #[arg(long, help_heading = "Scripts")]
    account: Option<String>,
    /// Image of a container, for Kubernetes
    #[arg(long, default_value = "wsi-nuclei:latest", help_heading = "Scripts")]
    image: String,
    /// The program, as tasks find it [default: this one]
    #[arg(long, value_name = "PATH", help_heading = "Scripts")]
    program: Option<String>,
    /// Let several tasks share the tiles of a slide that is expected to take longer than MIN minutes, in parts of about
    /// that time
    #[arg(long, value_name = "MIN")]
    split_slides: Option<f64>,
    /// Seconds between a claim's heartbeats
    #[arg(long, value_name = "S", default_value_t = 5.0, help_heading = "Claims")]
    heartbeat: f64,
    /// Seconds without a heartbeat after which another task takes the row over
    #[arg(
        long,
        value_name = "S",
        default_value_t = 120.0,
        help_heading = "Claims"
    )]
    stale_after: f64,
    /// TOML file of settings
    #[arg(long, value_name = "FILE", env = "WSI_NUCLEI_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub fn main(mut args: PlanArgs) -> Result<(), Failure> {
    if args.dry_run {
        // Nothing is written, so nobody has to say where.
        args.settings.output.get_or_insert_with(|| "cohort".into());
    }
    let (config, _) = settings::resolve(args.settings.clone(), args.config.as_deref())?;
    check(&args, &config)?;
    let slides = slides(&args, &config)?;
    if !args.dry_run {
        run::check_writable(&config.output)?;
    }
    let out = std::path::absolute(&config.output).unwrap_or_else(|_| config.output.clone());
    let layout = Layout::new(&out);
    let stop = signals::stop_flag()?;
    let flags = flags_of(&config);
    let asked = Asked {
        layout: &layout,
        slides: &slides,
        config: &config,
        heartbeat_s: args.heartbeat,
        stale_s: args.stale_after,
        split_s: args.split_slides.map(|minutes| 60.0 * minutes),
    };
    let cohort = plan::plan(&asked, &|| worker_command(&flags), &say, &stop)?;
    let bill = cost::bill(&cohort);
    let needs = needs(&args, &config, &cohort, &bill, &layout);
    print(&bill_text(&cohort, &bill, &needs))?;
    if args.dry_run {
        return Ok(());
    }
    for (name, text) in scripts::all(&needs)? {
        let path = layout.out.join(name);
        let written = atomic::write_bytes(&path, text.as_bytes());
        written.map_err(|source| CohortError::File {
            path,
            doing: "written",
            source,
        })?;
    }
    let folder = layout.claims();
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failure::slides(format!("{}: {error}", folder.display())))?;
    // Last: a plan that is there is complete.
    cohort.write(&layout)?;
    print(&format!(
        "written  {}\nnext     bash {}   (or: wsi-nuclei cohort run {})\n",
        layout.plan().display(),
        scripts::quoted(&layout.out.join("submit-slurm.sh").display().to_string()),
        scripts::quoted(&layout.out.display().to_string())
    ))
}

fn check(args: &PlanArgs, config: &RunConfig) -> Result<(), Failure> {
    if config.postproc == PostprocRules::Reference {
        return Err(Failure::usage(
            "--postproc reference is for `tile` and `postproc`: leave it out here",
        ));
    }
    if config.restart || config.shard.is_some() {
        return Err(Failure::usage(
            "--restart and --shard are no settings of a cohort: use another folder, or cohort run --shard",
        ));
    }
    if args.settings.retries.is_some() || args.settings.requeue_exit_code.is_some() {
        return Err(Failure::usage(
            "--retries and --requeue-exit-code are no settings of a plan: give them to cohort run",
        ));
    }
    let beats = args.heartbeat > 0.0 && args.stale_after >= 4.0 * args.heartbeat;
    if !beats || args.stale_after > 1e6 {
        return Err(Failure::usage(
            "--stale-after must be at least four times --heartbeat: else tasks that live are taken for dead",
        ));
    }
    if args
        .split_slides
        .is_some_and(|minutes| minutes.is_nan() || minutes <= 0.0)
    {
        return Err(Failure::usage(
            "--split-slides must be more than 0 minutes: leave it out to share no slide",
        ));
    }
    if args.tasks == Some(0) || args.at_once == 0 || args.max_array < 2 {
        return Err(Failure::usage(
            "--tasks and --at-once must be at least 1, --max-array at least 2",
        ));
    }
    Ok(())
}

/// The slides of the paths, patterns and manifest given.
fn slides(args: &PlanArgs, config: &RunConfig) -> Result<Vec<SlideConfig>, Failure> {
    let is_csv = |path: &PathBuf| {
        let extension = path.extension();
        extension.is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
    };
    match args.slides.as_slice() {
        [manifest] if is_csv(manifest) => return Ok(inputs::from_manifest(manifest, config)?),
        paths if paths.iter().any(is_csv) => {
            return Err(Failure::usage(
                "a manifest stands alone: give one CSV, or slides and folders",
            ));
        }
        _ => {}
    }
    let mut paths = Vec::new();
    for path in &args.slides {
        match path.exists() {
            true => paths.push(path.clone()),
            false => paths.extend(expanded(path)?),
        }
    }
    let extensions = inputs::slide_extensions();
    Ok(inputs::from_paths(
        &paths,
        args.recursive,
        extensions,
        config,
    )?)
}

/// The files that a pattern stands for, sorted; a path without one stays as it is.
fn expanded(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let name = path.file_name().map(|name| name.to_string_lossy());
    let folder = path.parent().unwrap_or(Path::new(""));
    let Some(pattern) = name.filter(|name| name.contains(['*', '?'])) else {
        return Ok(vec![path.to_owned()]);
    };
    let folder_or_here = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let entries = std::fs::read_dir(folder_or_here).map_err(|error| {
        Failure::usage(format!(
            "{}: the folder cannot be read: {error}",
            folder_or_here.display()
        ))
    })?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| matches(&pattern, &name.to_string_lossy()))
        .map(|name| folder.join(name))
        .collect();
    found.sort();
    match found.is_empty() {
        true => Err(Failure::usage(format!(
            "{}: nothing there has such a name",
            path.display()
        ))),
        false => Ok(found),
    }
}

/// Whether `*` (any text) and `?` (any letter) of a pattern can stand for the name; a hidden file needs its dot.
fn matches(pattern: &str, name: &str) -> bool {
    fn rest(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', after)) => (0..=name.len()).any(|skip| rest(after, &name[skip..])),
            Some(('?', after)) => !name.is_empty() && rest(after, &name[1..]),
            Some((letter, after)) => {
                name.first() == Some(letter) && rest(after, name.get(1..).unwrap_or(&[]))
            }
        }
    }
    let letters = |text: &str| text.chars().collect::<Vec<char>>();
    (!name.starts_with('.') || pattern.starts_with('.')) && rest(&letters(pattern), &letters(name))
}

/// The settings that somebody chose, as flags for the process that looks at slides.
fn flags_of(config: &RunConfig) -> Vec<String> {
    let settings = config.settings.iter();
    let chosen = settings.filter(|(_, setting)| setting.from > run::Origin::Default);
    let mut flags = vec![format!("--output={}", config.output.display())];
    for (name, setting) in chosen {
        if ROWS_SETTINGS.contains(&name.as_str()) {
            continue;
        }
        if let Some(text) = flag_text(&setting.value) {
            flags.push(format!("--{name}={text}"));
        }
    }
    flags
}

fn needs(
    args: &PlanArgs,
    config: &RunConfig,
    cohort: &Cohort,
    bill: &Bill,
    layout: &Layout,
) -> Needs {
    let trial_threads = cohort.trial.as_ref().map_or(1, |trial| trial.threads);
    let cpus = args.cpus.unwrap_or_else(|| cores().min(8));
    // Time was measured with the threads of this machine.
    let slower = (trial_threads as f64 / f64::from(cpus.max(1))).max(1.0);
    let longest_minutes = (3.0 * slower * bill.longest_s / 60.0).ceil() as u64;
    let on_cpu = matches!(config.device, DeviceChoice::Cpu);
    let program = std::env::current_exe().map(|path| path.display().to_string());
    Needs {
        tasks: args
            .tasks
            .unwrap_or(cohort.most_tasks())
            .min(cohort.most_tasks()),
        at_once: args.at_once,
        cpus,
        // A run keeps to 60 % of what it may use.
        memory_mib: args.memory_mib.unwrap_or_else(|| {
            let bytes = config.memory_bytes.unwrap_or(bill.memory_bytes) as f64;
            ((bytes / 0.6 / f64::from(1u32 << 20)) as u64).max(2048)
        }),
        gpus: args.gpus.unwrap_or(u32::from(!on_cpu)),
        minutes: args.minutes.unwrap_or(longest_minutes.max(60)),
        max_array: args.max_array,
        partition: args.partition.clone(),
        account: args.account.clone(),
        image: args.image.clone(),
        program: args
            .program
            .clone()
            .unwrap_or_else(|| program.unwrap_or_else(|_| "wsi-nuclei".into())),
        out: layout.out.display().to_string(),
        stage: config.stage.as_ref().map(|path| path.display().to_string()),
    }
}

fn bill_text(cohort: &Cohort, bill: &Bill, needs: &Needs) -> String {
    let (by, what) = match &cohort.trial {
        Some(trial) => (
            format!("a trial on {} with {} threads", trial.device, trial.threads),
            if trial.device == "cpu" { "CPU" } else { "GPU" },
        ),
        None => ("nothing: no slide could be tried".into(), "task"),
    };
    format!(
        "slides   {} ({} cannot be read, {} are copies of another row)\n\
         tissue   {:.1} mm²\n\
         time     {:.2} {what} hours for all, {:.0} s for the longest\n\
         disk     {:.2} GB\n\
         memory   {} MiB a task\n\
         array    {} tasks, {} at one time: about {:.2} h\n\
         by       {by}\n",
        bill.slides,
        bill.unreadable,
        bill.duplicates,
        bill.tissue_mm2,
        bill.hours,
        bill.longest_s,
        bill.disk_bytes as f64 / 1e9,
        needs.memory_mib,
        needs.tasks,
        needs.at_once.min(needs.tasks),
        (bill.hours / needs.at_once.min(needs.tasks).max(1) as f64).max(bill.longest_s / 3600.0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, name, expected) in [
            ("*.svs", "a.svs", true),
            ("*.svs", ".hidden.svs", false),
            ("a?.*", "ab.tiff", true),
            ("a?.*", "a.tiff", false),
            ("*a*", "banana", true),
            ("x", "xy", false),
            ("größe*", "größe-1.svs", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
