//! Files that are there whole or not at all.
//!
//! In: a path and what to write. Out: the file, safe on disk: it is written beside its place,
//! fsynced and renamed, and the folder is fsynced. A kill leaves at most a stray `.*.partial` file,
//! never half a result.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// End of the name of a file that is being written.
const PARTIAL: &str = ".partial";

/// A file that is being written: it lies beside its place until [`Partial::commit`], and is removed
/// if it is dropped before.
pub struct Partial {
    path: PathBuf,
    writer: BufWriter<tempfile::NamedTempFile>,
}

impl Partial {
    /// Begins `path` and makes its parent folders. A file already there stays until the commit.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let (folder, name) = split(path)?;
        create_dir_all(folder)?;
        let prefix = format!(".{}.", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(PARTIAL);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // A result is as readable as other files of the user: the umask applies.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temp = builder.tempfile_in(folder)?;
        Ok(Self {
            path: path.to_owned(),
            writer: BufWriter::with_capacity(1 << 16, temp),
        })
    }

    /// Puts the file in its place in one step.
    pub fn commit(self) -> io::Result<()> {
        let temp = self
            .writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        temp.as_file().sync_all()?;
        temp.persist(&self.path).map_err(|e| e.error)?;
        sync_dir(split(&self.path)?.0)
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Writes `path` atomically through `content`, and makes its parent folders. A file already there
/// is replaced in one step, and stays as it was if anything fails.
pub fn write(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut partial = Partial::begin(path)?;
    content(&mut partial)?;
    partial.commit()
}

/// Writes `bytes` as [`write()`] does.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, |w| w.write_all(bytes))
}

/// Makes a folder and its parents, each entry safe on disk.
pub fn create_dir_all(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_dir_all(parent)?;
    }
    match std::fs::create_dir(folder) {
        // Another thread may have been first.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        other => other?,
    }
    sync_dir(folder.parent().unwrap_or(Path::new("")))
}

/// Puts a folder's entries on disk.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    File::open(folder)?.sync_all()
}

fn split(path: &Path) -> io::Result<(&Path, PathBuf)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            Ok((folder, PathBuf::from(name)))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}: not the name of a file", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_whole_files_and_leaves_nothing_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/result.csv");
        write_bytes(&path, b"old and long").unwrap();
        write_bytes(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(path.parent().unwrap()), ["result.csv"]);
    }

    #[test]
    fn a_failed_writer_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.csv");
        write_bytes(&path, b"old").unwrap();
        let error = write(&path, |w| {
            w.write_all(b"half a")?;
            Err(io::Error::other("stop"))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "stop");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["result.csv"]);
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|n| folder.path().join(n));
        write_bytes(&ours, b"").unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
