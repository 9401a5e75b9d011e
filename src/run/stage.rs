//! A slide copied to a local disk while it is in work.
//!
//! In: a slide and a folder on a local disk. Out: the path of a copy, removed when it is dropped. Where there is no
//! room, or a copy fails, the slide is read where it lies. Never moves or changes the slide.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::RunError;
use crate::slide::companions;

/// Room that stays free beside the copy, bytes.
const ROOM_LEFT: u64 = 1 << 30;
/// Where schedulers say the folder of a job on its node's own disk, the surest first.
const LOCAL_FOLDERS: [&str; 2] = ["SLURM_TMPDIR", "TMPDIR"];

/// The folder that `--stage` names; `auto` stands for the one that the scheduler gave the job. `lookup` gives a variable
/// of the environment.
///
/// # Errors
/// `auto` where no scheduler names a folder.
pub fn folder(said: &Path, lookup: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, RunError> {
    if said != Path::new("auto") {
        return Ok(said.to_owned());
    }
    let found = LOCAL_FOLDERS
        .iter()
        .find_map(|name| lookup(name).filter(|value| !value.is_empty()));
    found.map(PathBuf::from).ok_or_else(|| {
        RunError::Usage(format!(
            "--stage auto: neither {} is set: name a folder of a local disk",
            LOCAL_FOLDERS.join(" nor ")
        ))
    })
}

/// A slide that lies on the local disk.
#[derive(Debug)]
pub struct Staged {
    /// The file to read in the slide's place.
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

/// Copies a slide and the files that belong to it into a new folder below `folder`.
///
/// # Errors
/// Why there is no copy: no room, or a file that cannot be read or written.
pub fn copy(folder: &Path, slide: &Path) -> io::Result<Staged> {
    let parts = companions::files_of(slide)?;
    let bytes: u64 = parts.iter().map(|part| bytes_of(part)).sum();
    fs::create_dir_all(folder)?;
    let free = free_bytes(folder)?;
    if bytes.saturating_add(ROOM_LEFT) > free {
        return Err(io::Error::other(format!(
            "it has {} MB, and {} MB are free",
            bytes / 1_000_000,
            free / 1_000_000
        )));
    }
    let own = tempfile::Builder::new()
        .prefix("wsi-nuclei-")
        .tempdir_in(folder)?;
    let place = |part: &Path| part.file_name().map(|name| own.path().join(name));
    for part in &parts {
        if let Some(to) = place(part) {
            copy_all(part, &to)?;
        }
    }
    let path = place(slide).ok_or_else(|| io::Error::other("it has no file name"))?;
    Ok(Staged { path, _folder: own })
}

fn bytes_of(path: &Path) -> u64 {
    if !path.is_dir() {
        return fs::metadata(path).map_or(0, |meta| meta.len());
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_of(&entry.path())).sum()
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: statvfs is a struct of plain numbers, for which all zeros is a value.
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with 0 and `facts` is a statvfs to be written; both live longer than the call.
    match unsafe { libc::statvfs(path.as_ptr(), &mut facts) } {
        // Their width differs between systems.
        #[allow(clippy::unnecessary_cast)]
        0 => Ok(facts.f_bavail as u64 * facts.f_frsize as u64),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slide_is_copied_with_its_companions_and_removed_after() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/deep")).unwrap();
        fs::write(dir.path().join("a.mrxs"), b"index").unwrap();
        fs::write(dir.path().join("a/deep/Data.dat"), b"pixels").unwrap();
        fs::write(dir.path().join("b.mrxs"), b"another slide").unwrap();
        let local = dir.path().join("local");
        let staged = copy(&local, &dir.path().join("a.mrxs")).unwrap();
        let own = staged.path.parent().unwrap().to_owned();
        assert!(own.starts_with(&local));
        assert_eq!(fs::read(own.join("a.mrxs")).unwrap(), b"index");
        assert_eq!(fs::read(own.join("a/deep/Data.dat")).unwrap(), b"pixels");
        assert!(!own.join("b.mrxs").exists());
        drop(staged);
        assert!(!own.exists());
        assert!(copy(&local, &dir.path().join("gone.mrxs")).is_err());
        // A copy that failed leaves nothing.
        assert_eq!(fs::read_dir(&local).unwrap().count(), 0);
    }

    #[test]
    fn auto_is_the_folder_that_the_scheduler_gave() {
        let of = |said: &str, variables: &[(&str, &str)]| {
            folder(Path::new(said), |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let both = [("TMPDIR", "/tmp"), ("SLURM_TMPDIR", "/local/7")];
        assert_eq!(of("auto", &both).unwrap(), Path::new("/local/7"));
        let empty = [("TMPDIR", "/tmp"), ("SLURM_TMPDIR", "")];
        assert_eq!(of("auto", &empty).unwrap(), Path::new("/tmp"));
        assert_eq!(of("/scratch", &both).unwrap(), Path::new("/scratch"));
        let missing = of("auto", &[]).unwrap_err().to_string();
        assert!(missing.contains("SLURM_TMPDIR nor TMPDIR"), "{missing}");
    }
}
