//! Who may work on a row: claims as files on the file system that all tasks share.
//!
//! In: a row. Out: a [`Claim`], or who has it. Never waits, and never removes a claim that may be alive.
//!
//! A claim is the file `claims/<row>.<generation>`, or `claims/<row>-<part>.<generation>` where tasks share a slide.
//! Its owner is whoever *created* it: create-exclusive is decided by the file server (NFS from version 3 on, Lustre,
//! GPFS, local disks). Whoever finds the latest claim of a row dead creates the next generation; of several, one
//! succeeds. Four rules keep two from doing a row:
//!
//! 1. A claim ends with a record of its generation, written before the claim is removed. So generations of a row only
//!    grow, and no file name comes twice.
//! 2. The owner writes into its file at every heartbeat, without creating it. A file that is gone, or a claim of a
//!    later generation, tells it that it has been replaced.
//! 3. Before its results are written, the owner creates the *next* generation itself ([`Claim::renew`]). Here the server
//!    decides between a task that woke up and its successor: one of them cannot create that file.
//! 4. Age is the time of the claim's file less that of a file written just now, both stamped by the file server. No
//!    machine's own clock counts. (Lustre stamps with the client's clock: there nodes need NTP.)

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::owner::Owner;
use super::record::{self, Record};
use super::work::Work;
use super::{CohortError, Layout};

/// Bytes of a claim's file. Its size never changes, so that a heartbeat is one write in place.
const BLOCK_BYTES: usize = 1536;

/// What a claim's file says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimText {
    /// Who has it.
    pub owner: Owner,
    /// Seconds since 1970-01-01 UTC by the owner's clock, for people.
    pub since_unix_s: u64,
    /// How many heartbeats there were.
    pub beats: u64,
    /// How many owners died on this row since somebody last gave it back.
    pub deaths: u32,
    /// What the slide in work is doing.
    pub progress: Progress,
}

/// How far a slide has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// `inferring`, `writing`, …
    pub stage: String,
    /// mm² predicted.
    pub mm2_done: f64,
    /// mm² to be predicted.
    pub mm2_planned: f64,
    /// What a checkpoint had when this attempt began.
    pub mm2_before: f64,
    /// Nuclei found in this attempt, before tiles are joined.
    pub nuclei: u64,
    /// Since this attempt began.
    pub seconds: f64,
}

/// Where the claims of a cohort lie, and how this task judges them.
#[derive(Debug, Clone)]
pub struct Desk {
    claims: PathBuf,
    records: PathBuf,
    here: Owner,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// A claim that was not touched for so long is dead.
    pub stale: Duration,
}

/// The right to work on a row, or a part of one.
#[derive(Debug)]
pub struct Claim {
    desk: Desk,
    /// What it is a claim to.
    pub work: Work,
    /// How many claims of this work there were, with this one.
    pub generation: u64,
    text: ClaimText,
}

/// What became of a try to claim a row.
#[derive(Debug)]
pub enum Taken {
    /// It is ours.
    Mine(Box<Claim>),
    /// Somebody else has it; so long ago they last touched it.
    Busy {
        /// Time since then.
        age: Duration,
    },
    /// It has ended, or somebody was quicker.
    Not,
}

/// Latest generations of all rows and their parts, of records and of claims.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The latest record of each that has one.
    pub records: BTreeMap<Work, u64>,
    /// The latest claim of each that has one.
    pub claims: BTreeMap<Work, u64>,
}

/// Somebody else has this row now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl Desk {
    /// The claims of a cohort; makes their folders.
    ///
    /// # Errors
    /// Folders that cannot be made.
    pub fn open(
        layout: &Layout,
        here: Owner,
        heartbeat: Duration,
        stale: Duration,
    ) -> Result<Self, CohortError> {
        for folder in [layout.claims(), layout.records()] {
            fs::create_dir_all(&folder).map_err(|error| CohortError::write(&folder, error))?;
        }
        Ok(Self {
            claims: layout.claims(),
            records: layout.records(),
            here,
            heartbeat,
            stale,
        })
    }

    /// Where the records lie.
    pub fn records(&self) -> &Path {
        &self.records
    }

    /// Who works here.
    pub fn here(&self) -> &Owner {
        &self.here
    }

    /// What is claimed and what has ended, now.
    ///
    /// # Errors
    /// Folders that cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, CohortError> {
        // Claims first: whoever ends a row between the two looks has its record in the second.
        let claims = record::latest(&self.claims, parse_name)?;
        let records = record::generations(&self.records)?;
        Ok(Snapshot { records, claims })
    }

    /// Tries to claim a row, or a part of one. `may_redo` says whether one that has ended this way is done again.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn take(
        &self,
        work: impl Into<Work>,
        seen: &Snapshot,
        may_redo: impl Fn(&Record) -> bool,
    ) -> Result<Taken, CohortError> {
        let work = work.into();
        let recorded = seen.records.get(&work).copied().unwrap_or(0);
        let claimed = seen.claims.get(&work).copied().unwrap_or(0);
        if claimed <= recorded && recorded > 0 {
            let Some(record) = record::read(&self.records, work, recorded)? else {
                return Ok(Taken::Not);
            };
            if record.state.is_final() && !may_redo(&record) {
                return Ok(Taken::Not);
            }
        }
        let mut deaths = 0;
        if claimed > recorded {
            let path = self.path(work, claimed);
            let Some((text, age)) = self.look(&path)? else {
                return Ok(Taken::Not);
            };
            let is_dead = text
                .as_ref()
                .is_some_and(|text| text.owner.is_dead(&self.here));
            if !is_dead && age <= self.stale {
                return Ok(Taken::Busy { age });
            }
            deaths = text.map_or(0, |text| text.deaths) + 1;
        }
        let text = ClaimText {
            owner: self.here.clone(),
            since_unix_s: unix_seconds(),
            deaths,
            ..ClaimText::default()
        };
        let generation = recorded.max(claimed) + 1;
        if !self.create(work, generation, &text)? {
            return Ok(Taken::Busy {
                age: Duration::ZERO,
            });
        }
        let claim = Claim {
            desk: self.clone(),
            work,
            generation,
            text,
        };
        // Since the look, another may have had the row from its beginning to its end.
        let again = record::generations(&self.records)?;
        if again
            .get(&work)
            .is_some_and(|&recorded| recorded >= generation)
        {
            claim.remove_files();
            return Ok(Taken::Not);
        }
        Ok(Taken::Mine(Box::new(claim)))
    }

    /// Removes claims that are no later than their row's record: they mean nothing, whoever left them. A task that is
    /// killed between two steps leaves such a one.
    ///
    /// # Errors
    /// Folders that cannot be read.
    pub fn tidy(&self) -> Result<(), CohortError> {
        let records = record::generations(&self.records)?;
        let entries = fs::read_dir(&self.claims).into_iter().flatten().flatten();
        for entry in entries {
            let parsed = entry.file_name().to_str().and_then(parse_name);
            let is_over = parsed.is_some_and(|(work, generation)| {
                records.get(&work).is_some_and(|&last| generation <= last)
            });
            if is_over {
                // Somebody else may have removed it.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// What a claim's file says, and how long ago it was touched; `None`: it is gone. Its text is `None` where it was
    /// read while it was written.
    fn look(&self, path: &Path) -> Result<Option<(Option<ClaimText>, Duration)>, CohortError> {
        let Some((text, touched)) = read_text(path)? else {
            return Ok(None);
        };
        let now = server_now(&self.claims)?;
        let age = now.duration_since(touched).unwrap_or_default();
        Ok(Some((text, age)))
    }

    fn path(&self, work: Work, generation: u64) -> PathBuf {
        self.claims.join(file_name(work, generation))
    }

    /// Creates a claim's file; false where it is there already.
    fn create(&self, work: Work, generation: u64, text: &ClaimText) -> Result<bool, CohortError> {
        let path = self.path(work, generation);
        let mut file = match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            file => file.map_err(|error| CohortError::write(&path, error))?,
        };
        file.write_all(&block(text))
            .and_then(|()| file.sync_data())
            .map_err(|error| CohortError::write(&path, error))?;
        Ok(true)
    }
}

impl Claim {
    /// Time between two heartbeats.
    pub fn heartbeat(&self) -> Duration {
        self.desk.heartbeat
    }

    /// How many owners died on this row before.
    pub fn deaths(&self) -> u32 {
        self.text.deaths
    }

    /// Says that this task lives, and how far it has come.
    ///
    /// # Errors
    /// [`Lost`] where somebody else has the row. A file system that does not answer is no loss: the next heartbeat
    /// may reach it.
    pub fn beat(&mut self, progress: &Progress) -> Result<(), Lost> {
        self.text.beats += 1;
        self.text.progress = progress.clone();
        self.touch()?;
        match self.desk.path(self.work, self.generation + 1).exists() {
            true => Err(Lost),
            false => Ok(()),
        }
    }

    fn touch(&self) -> Result<(), Lost> {
        let path = self.desk.path(self.work, self.generation);
        let written = File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&block(&self.text), 0));
        match written {
            Err(error) if is_gone(&error) => Err(Lost),
            _ => Ok(()),
        }
    }

    /// Takes the next generation of the row: to be done before results are written. From here on a task that was
    /// taken for dead has no right to the row, and this one has it anew.
    ///
    /// # Errors
    /// [`Lost`] where somebody else has the row, or nobody can say.
    pub fn renew(&mut self) -> Result<(), Lost> {
        let created = self.desk.create(self.work, self.generation + 1, &self.text);
        if !matches!(created, Ok(true)) {
            return Err(Lost);
        }
        // The successor may have finished and removed its files: then ours is gone, too.
        let own_is_there = self.touch().is_ok();
        let recorded = record::generations(&self.desk.records).ok();
        let not_ended = recorded.is_some_and(|recorded| {
            recorded
                .get(&self.work)
                .is_none_or(|&last| last < self.generation)
        });
        if own_is_there && not_ended {
            self.generation += 1;
            return Ok(());
        }
        // This very file was created by us a moment ago, for nothing.
        let _ = fs::remove_file(self.desk.path(self.work, self.generation + 1));
        Err(Lost)
    }

    /// Ends the claim with its record.
    ///
    /// # Errors
    /// A record that cannot be written: then the claim stays, and dies with this process.
    pub fn finish(self, mut record: Record) -> Result<(), CohortError> {
        record.work = self.work;
        record.generation = self.generation;
        record.by = self.desk.here.name();
        record.ended_unix_s = unix_seconds();
        record::write(&self.desk.records, &record)?;
        self.remove_files();
        Ok(())
    }

    /// Removes the files of this claim and of the dead ones before it, the oldest first: while a sleeper's own file is
    /// there, so is ours.
    fn remove_files(&self) {
        let entries = fs::read_dir(&self.desk.claims)
            .into_iter()
            .flatten()
            .flatten();
        let mut ours: Vec<u64> = entries
            .filter_map(|entry| parse_name(entry.file_name().to_str()?))
            .filter(|&(work, generation)| work == self.work && generation <= self.generation)
            .map(|(_, generation)| generation)
            .collect();
        ours.sort_unstable();
        for generation in ours {
            // A claim below a record means nothing, so one that stays does no harm.
            let _ = fs::remove_file(self.desk.path(self.work, generation));
        }
    }
}

/// A claim as `cohort status` sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What it says; `None`: it was read while it was written.
    pub text: Option<ClaimText>,
    /// Time since it was last touched.
    pub age: Duration,
}

/// The claim of a generation, as seen by somebody who takes none; `now` is the file server's time.
pub fn see(claims: &Path, work: Work, generation: u64, now: SystemTime) -> Option<Seen> {
    let path = claims.join(file_name(work, generation));
    let (text, touched) = read_text(&path).ok()??;
    let age = now.duration_since(touched).unwrap_or_default();
    Some(Seen { text, age })
}

/// The latest claim of each row and part in `folder`.
pub fn generations(folder: &Path) -> Result<BTreeMap<Work, u64>, CohortError> {
    record::latest(folder, parse_name)
}

/// The time on the file server, by a file written there now.
pub fn server_now(folder: &Path) -> Result<SystemTime, CohortError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut builder = tempfile::Builder::new();
    let prefix = format!(".now.{}.{count}.", std::process::id());
    let file = builder.prefix(&prefix).tempfile_in(folder);
    let stamped = file.and_then(|mut file| {
        file.write_all(b"now")?;
        file.as_file().sync_data()?;
        file.as_file().metadata()?.modified()
    });
    stamped.map_err(|error| CohortError::write(folder, error))
}

fn read_text(path: &Path) -> Result<Option<(Option<ClaimText>, SystemTime)>, CohortError> {
    let read = || -> io::Result<_> {
        let bytes = fs::read(path)?;
        Ok((bytes, fs::metadata(path)?.modified()?))
    };
    match read() {
        Ok((bytes, touched)) => Ok(Some((serde_json::from_slice(&bytes).ok(), touched))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(CohortError::read(path, error)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESTALE)
}

fn file_name(work: Work, generation: u64) -> String {
    format!("{work}.{generation}")
}

/// Work and generation of a claim's file name; `None`: a file of another kind.
fn parse_name(name: &str) -> Option<(Work, u64)> {
    let (work, generation) = name.split_once('.')?;
    Some((Work::parse(work)?, generation.parse().ok()?))
}

/// The text at its fixed size, filled up with blanks. Text that is too long loses its stage's name, then all but the owner.
fn block(text: &ClaimText) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(text).unwrap_or_default();
    if bytes.len() > BLOCK_BYTES {
        let short = ClaimText {
            owner: text.owner.clone(),
            deaths: text.deaths,
            ..ClaimText::default()
        };
        bytes = serde_json::to_vec(&short).unwrap_or_default();
    }
    bytes.resize(BLOCK_BYTES, b' ');
    bytes
}

/// Seconds since 1970-01-01 UTC.
pub(super) fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
