//! Broken slides as data: tests/cases/*.toml name a base, edits of its bytes, and how the run must end.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::harness::{self, Dir, shared};
use crate::tiff::{self, Options, TILE_BYTE_COUNTS, TILE_OFFSETS};

/// What a case file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    /// `aperio.svs`, `generic.tiff`, `field.png`: made here; or `shared/…`.
    base: String,
    /// Flags of every case.
    #[serde(default)]
    flags: String,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    edits: Vec<Edit>,
    #[serde(default)]
    flags: String,
    code: i32,
    /// Words of the messages, all of them.
    says: Vec<String>,
    /// mm² that summary.json must account for as unreadable, to 1 %. Without it: none, or no summary.
    #[serde(default)]
    unreadable_mm2: f64,
}

/// One change of a file's bytes. `at` counts from the file's start, or, if negative, from its end.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Edit {
    /// Keeps this share of the bytes.
    Truncate {
        share: f64,
    },
    /// Adds zeros.
    Append {
        bytes: usize,
    },
    Flip {
        at: i64,
        bits: u8,
    },
    /// Flips one bit in every `every` bytes, somewhere in it.
    Noise {
        from: i64,
        every: usize,
    },
    Fill {
        at: i64,
        bytes: usize,
        value: u8,
    },
    /// Overwrites the first `find` in place.
    Text {
        find: String,
        with: String,
    },
    /// Overwrites a tag's first value.
    Tag {
        directory: usize,
        tag: u16,
        value: u32,
    },
    TagKind {
        directory: usize,
        tag: u16,
        to: u16,
    },
    TagCount {
        directory: usize,
        tag: u16,
        to: u32,
    },
    /// Renames a tag to one that nobody knows.
    DropTag {
        directory: usize,
        tag: u16,
    },
    /// Makes `directory` the last one.
    LastDirectory {
        directory: usize,
    },
    /// Links the last of `directory + 1` directories back to the first.
    Loop {
        directory: usize,
    },
    /// Fills a tile's bytes.
    FillTile {
        directory: usize,
        tile: usize,
        value: u8,
    },
    /// Keeps this many bytes of a tile.
    CutTile {
        directory: usize,
        tile: usize,
        bytes: u32,
    },
    /// Says that a tile lies elsewhere.
    MoveTile {
        directory: usize,
        tile: usize,
        to: u32,
    },
    /// Overwrites bytes within a tile.
    ScratchTile {
        directory: usize,
        tile: usize,
        at: usize,
        bytes: usize,
    },
}

impl Edit {
    fn kind(&self) -> &'static str {
        match self {
            Edit::Truncate { .. } => "truncate",
            Edit::Append { .. } => "append",
            Edit::Flip { .. } => "flip",
            Edit::Noise { .. } => "noise",
            Edit::Fill { .. } => "fill",
            Edit::Text { .. } => "text",
            Edit::Tag { .. } => "tag",
            Edit::TagKind { .. } => "tag kind",
            Edit::TagCount { .. } => "tag count",
            Edit::DropTag { .. } => "drop tag",
            Edit::LastDirectory { .. } => "last directory",
            Edit::Loop { .. } => "loop",
            Edit::FillTile { .. } => "fill tile",
            Edit::CutTile { .. } => "cut tile",
            Edit::MoveTile { .. } => "move tile",
            Edit::ScratchTile { .. } => "scratch tile",
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let place = |at: i64| match usize::try_from(at) {
            Ok(at) => at,
            Err(_) => len - at.unsigned_abs() as usize,
        };
        match *self {
            Edit::Truncate { share } => bytes.truncate((len as f64 * share) as usize),
            Edit::Append { bytes: more } => bytes.resize(len + more, 0),
            Edit::Flip { at, bits } => bytes[place(at)] ^= bits,
            Edit::Noise { from, every } => {
                let mut random = 12_345u32;
                for start in (place(from)..len - every).step_by(every) {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    bytes[start + (random >> 8) as usize % every] ^= 1 << (random >> 29);
                }
            }
            Edit::Fill {
                at,
                bytes: n,
                value,
            } => {
                let start = place(at);
                bytes[start..start + n].fill(value);
            }
            Edit::Text { ref find, ref with } => {
                let at = bytes.windows(find.len()).position(|w| w == find.as_bytes());
                let at = at.unwrap_or_else(|| panic!("no `{find}` in the file"));
                bytes[at..at + with.len()].copy_from_slice(with.as_bytes());
            }
            Edit::Tag {
                directory,
                tag,
                value,
            } => tiff::set_value(bytes, directory, tag, 0, value),
            Edit::TagKind { directory, tag, to } => {
                let at = tiff::entry(bytes, directory, tag);
                tiff::set_entry(bytes, at, None, Some(to), None);
            }
            Edit::TagCount { directory, tag, to } => {
                let at = tiff::entry(bytes, directory, tag);
                tiff::set_entry(bytes, at, None, None, Some(to));
            }
            Edit::DropTag { directory, tag } => {
                let at = tiff::entry(bytes, directory, tag);
                tiff::set_entry(bytes, at, Some(tag | 0xc000), None, None);
            }
            Edit::LastDirectory { directory } => tiff::set_next(bytes, directory, 0),
            Edit::Loop { directory } => {
                let first = tiff::place_of(bytes, 0);
                tiff::set_next(bytes, directory, first);
            }
            Edit::FillTile {
                directory,
                tile,
                value,
            } => {
                let range = tiff::tile(bytes, directory, tile);
                bytes[range].fill(value);
            }
            Edit::CutTile {
                directory,
                tile,
                bytes: keep,
            } => {
                tiff::set_value(bytes, directory, TILE_BYTE_COUNTS, tile, keep);
            }
            Edit::MoveTile {
                directory,
                tile,
                to,
            } => {
                tiff::set_value(bytes, directory, TILE_OFFSETS, tile, to);
            }
            Edit::ScratchTile {
                directory,
                tile,
                at,
                bytes: n,
            } => {
                let start = tiff::tile(bytes, directory, tile).start + at;
                bytes[start..start + n].fill(0xa5);
            }
        }
    }
}

/// The undamaged bytes of a base and the ending of its name; `None`: not on this machine.
fn base(name: &str) -> Option<(Vec<u8>, String)> {
    let ending = Path::new(name)
        .extension()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let field = harness::field(900, 700);
    let half = image::imageops::thumbnail(&field, 450, 350);
    let options = |description, mpp| Options {
        tile_px: 256,
        jpeg: true,
        description,
        mpp,
    };
    let bytes = match name {
        "aperio.svs" => tiff::tiled(
            std::slice::from_ref(&field),
            &options(
                Some("Aperio Image Library v1\r\n900x700 (256x256)|AppMag = 20|MPP = 0.5000"),
                None,
            ),
        ),
        "generic.tiff" => tiff::tiled(&[field, half], &options(None, Some(0.5))),
        "field.png" => {
            let mut bytes = std::io::Cursor::new(Vec::new());
            field.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            bytes.into_inner()
        }
        shared_name => {
            std::fs::read(shared(shared_name.strip_prefix("shared/").unwrap())?).unwrap()
        }
    };
    Some((bytes, ending))
}

/// What a run of a case came to, checked; its messages without names and numbers.
fn check(
    case: &Case,
    flags: &str,
    mut bytes: Vec<u8>,
    ending: &str,
) -> Result<BTreeSet<String>, String> {
    for edit in &case.edits {
        edit.apply(&mut bytes);
    }
    let dir = Dir::new();
    let file = format!("case.{ending}");
    dir.write(&file, &bytes);
    let line = format!(
        "run {file} -o out --model analytic --format csv --progress plain {flags} {}",
        case.flags
    );
    let run = dir.run(&line);
    let wrong = |what: String| Err(format!("{}: {what}\n{line}\n{}", case.name, run.stderr));
    if run.code != Some(case.code) {
        return wrong(format!("ended with {:?}, not {}", run.code, case.code));
    }
    if run.stderr.contains("panicked") {
        return wrong("panicked".into());
    }
    for words in &case.says {
        if !run.stderr.contains(words.as_str()) {
            return wrong(format!("does not say `{words}`"));
        }
    }
    let summary = dir.path("out/case/summary.json");
    let unreadable_mm2 = match summary.is_file() {
        true => dir.json("out/case/summary.json")["area_mm2"]["unreadable"]
            .as_f64()
            .unwrap(),
        false => 0.0,
    };
    if (unreadable_mm2 - case.unreadable_mm2).abs() > 0.01 * case.unreadable_mm2 {
        return wrong(format!(
            "{unreadable_mm2} mm² are unreadable, not {}",
            case.unreadable_mm2
        ));
    }
    if case.unreadable_mm2 > 0.0 && dir.json("out/case/summary.json")["nuclei"]["count"] == 0 {
        return wrong("the readable rest has no nuclei".into());
    }
    let told = run
        .stderr
        .lines()
        .filter(|line| line.contains("error: ") || line.contains("warning: "));
    Ok(told
        .map(|line| line.replace(|c: char| c.is_ascii_digit(), ""))
        .collect())
}

#[test]
fn broken_slides_end_as_their_cases_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let (mut cases, mut skipped) = (0, 0);
    let (mut kinds, mut messages) = (BTreeSet::new(), BTreeSet::new());
    let mut failures = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let file: CaseFile =
            toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let Some((bytes, ending)) = base(&file.base) else {
            skipped += file.case.len();
            continue;
        };
        for case in &file.case {
            cases += 1;
            kinds.extend(case.edits.iter().map(Edit::kind));
            match check(case, &file.flags, bytes.clone(), &ending) {
                Ok(told) => messages.extend(told),
                Err(why) => failures.push(why),
            }
        }
    }
    eprintln!(
        "broken slides: {cases} cases, {} kinds of edit, {} messages; {skipped} left out",
        kinds.len(),
        messages.len()
    );
    assert!(
        failures.is_empty(),
        "{} of {cases}:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    if skipped == 0 {
        assert!(
            cases >= 40 && kinds.len() >= 12 && messages.len() >= 15,
            "{kinds:#?} {messages:#?}"
        );
    }
}

#[test]
fn what_is_no_file_or_has_an_odd_name() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = Dir::new();
    let run = |names: &[&str]| {
        let mut command = dir.command("run --model analytic --format csv --mpp 0.5 -o out");
        harness::Run::of(&names.join(" "), command.args(names).output().unwrap())
    };
    let fails = |name: &str, code: i32, words: &str| {
        let run = run(&[name]);
        assert_eq!(run.code, Some(code), "{name}\n{}", run.stderr);
        assert!(
            run.stderr.contains(words),
            "{name}: no `{words}` in\n{}",
            run.stderr
        );
    };
    std::fs::create_dir(dir.path("folder.svs")).unwrap();
    fails("folder.svs", 2, "no slide or image in this folder");
    symlink("loop.svs", dir.path("loop.svs")).unwrap();
    fails("loop.svs", 3, "loop.svs: cannot be opened");
    symlink("gone.svs", dir.path("dangling.svs")).unwrap();
    fails("dangling.svs", 3, "dangling.svs: no such file");
    fails("/dev/null", 3, "it is not a regular file");
    dir.field("a.png", 200, 150);
    std::fs::copy(dir.path("a.png"), dir.path("closed.png")).unwrap();
    std::fs::set_permissions(dir.path("closed.png"), PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::read(dir.path("closed.png")).is_err() {
        fails("closed.png", 3, "closed.png");
    } else {
        eprintln!("skipped: an unreadable file: root may read all");
    }
    let odd = "Größe 切片 (2) é.png";
    std::fs::copy(dir.path("a.png"), dir.path(odd)).unwrap();
    let done = run(&[odd]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(!dir.read("out/Größe 切片 (2) é/nuclei.csv").is_empty());
    // Bad ones among good ones cost themselves alone.
    let mixed = run(&["loop.svs", "a.png", "gone.svs"]);
    assert_eq!(mixed.code, Some(1), "{}", mixed.stderr);
    assert!(dir.path("out/a/nuclei.csv").is_file());
}
