//! A slide copied to a local disk while it is in work.
//!
//! In: a row and a folder on a local disk. Out: the row with the copy's path, removed when it is dropped. Where there is
//! no room, or a copy fails, the slide is read where it lies. Never moves or changes the slide.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::plan::Row;

/// Room that stays free beside the copy, bytes.
const ROOM_LEFT: u64 = 1 << 30;

/// A row whose slide lies on the local disk.
pub struct Staged {
    pub row: Row,
    _folder: tempfile::TempDir,
}

/// Copies a row's slide and what belongs to it into a new folder below `folder`.
pub fn copy(folder: Option<&Path>, row: &Row, say: &dyn Fn(&str)) -> Option<Staged> {
    let folder = folder?;
    match try_copy(folder, row) {
        Ok(staged) => staged,
        Err(error) => {
            say(&format!(
                "row {}: not copied to {} ({error}): read where it lies",
                row.row,
                folder.display()
            ));
            None
        }
    }
}

fn try_copy(folder: &Path, row: &Row) -> io::Result<Option<Staged>> {
    let parts = parts_of(&row.path)?;
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
    for part in &parts {
        if let Some(name) = part.file_name() {
            copy_all(part, &own.path().join(name))?;
        }
    }
    let Some(name) = row.path.file_name() else {
        return Ok(None);
    };
    let row = Row {
        path: own.path().join(name),
        ..row.clone()
    };
    Ok(Some(Staged { row, _folder: own }))
}

/// A slide and its companions: the folder of a MIRAX or VMS file, the other instances of a DICOM series, what lies
/// beside a file of several.
fn parts_of(slide: &Path) -> io::Result<Vec<PathBuf>> {
    let extension = slide
        .extension()
        .map(|e| e.to_string_lossy().to_lowercase());
    let folder = slide.parent().unwrap_or(Path::new("."));
    let mut parts = vec![slide.to_owned()];
    match extension.as_deref() {
        Some("mrxs") => parts.push(slide.with_extension("")),
        // These name their other files inside; all of them lie in one folder.
        Some("dcm" | "vms" | "vmu" | "vsi") => {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path != slide {
                    parts.push(path);
                }
            }
        }
        _ => {}
    }
    Ok(parts)
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
        let row = Row {
            path: dir.path().join("a.mrxs"),
            ..Row::default()
        };
        let local = dir.path().join("local");
        let staged = copy(Some(&local), &row, &|_| {}).unwrap();
        let own = staged.row.path.parent().unwrap().to_owned();
        assert!(own.starts_with(&local));
        assert_eq!(fs::read(own.join("a.mrxs")).unwrap(), b"index");
        assert_eq!(fs::read(own.join("a/deep/Data.dat")).unwrap(), b"pixels");
        assert!(!own.join("b.mrxs").exists());
        drop(staged);
        assert!(!own.exists());
        let gone = Row {
            path: dir.path().join("gone.mrxs"),
            ..Row::default()
        };
        assert!(copy(Some(&local), &gone, &|_| {}).is_none());
    }
}
