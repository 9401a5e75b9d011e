//! Runs the real binary in a scratch folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::{Rgb, RgbImage};

/// A scratch folder; the binary runs in it.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A field of dark discs on pink, as PNG.
    pub fn field(&self, name: &str, width: u32, height: u32) -> &Self {
        field(width, height).save(self.path(name)).unwrap();
        self
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// The binary with these arguments, split at blanks; no environment but what it needs to start.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wsi-nuclei"));
        command
            .env_clear()
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command.args(line.split_whitespace());
        command
    }

    pub fn run(&self, line: &str) -> Run {
        Run::of(line, self.command(line).output().unwrap())
    }

    /// Runs and expects 0.
    pub fn ok(&self, line: &str) -> Run {
        let run = self.run(line);
        assert_eq!(run.code, Some(0), "{line}\n{}", run.stderr);
        run
    }

    /// Runs and expects an exit code and these words in the message; never a panic.
    pub fn fails(&self, line: &str, code: i32, words: &[&str]) {
        let run = self.run(line);
        assert_eq!(run.code, Some(code), "{line}\n{}", run.stderr);
        assert!(run.stderr.contains("error: "), "{line}\n{}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{line}\n{}", run.stderr);
        for word in words {
            assert!(
                run.stderr.contains(word),
                "{line}: no `{word}` in\n{}",
                run.stderr
            );
        }
    }
}

/// How a command ended.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(line: &str, output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap_or_else(|_| panic!("{line}: not UTF-8"));
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Discs of 9 px radius every 30 px.
pub fn field(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (dx, dy) = ((x % 30) as i32 - 15, (y % 30) as i32 - 15);
        if dx * dx + dy * dy <= 81 {
            Rgb([80, 50, 130])
        } else {
            Rgb([230, 180, 210])
        }
    })
}

/// A file below shared/, if this machine has it.
pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("WSI_NUCLEI_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not on this machine", path.display());
    None
}

/// Sends a signal to a child.
pub fn signal(child: &std::process::Child, signal: i32) {
    // SAFETY: kill(2) takes plain numbers; the child has not been waited for, so its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}
