//! Which files of a folder make one slide.
//!
//! In: files found in folders, or one slide. Out: one file per slide, and which others belong to it: a
//! DICOM series has a file per level, a Hamamatsu .vms or .vmu names the JPEGs that hold its pixels,
//! and a MIRAX slide has a folder of its name.
//! Never opens a slide: a library that looks through the folder for each file would take hours.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes at the start of a DICOM file in which its series is named.
const HEAD_BYTES: u64 = 1 << 20;
/// Largest .vms or .vmu that is read, bytes.
const INDEX_BYTES: u64 = 1 << 20;
/// Sequences within sequences that are followed.
const MAX_DEPTH: usize = 16;

/// A file that stands for a slide.
#[derive(Debug, Clone, PartialEq)]
pub struct SlideFile {
    /// The file to open.
    pub path: PathBuf,
    /// The other files of the list that hold parts of the same slide.
    pub companions: Vec<PathBuf>,
}

/// One file per slide of `files`, in their order.
pub fn group_files(files: Vec<PathBuf>) -> Vec<SlideFile> {
    let named = files_of_indexes(&files);
    let mut slides: Vec<SlideFile> = Vec::new();
    let mut of_series = BTreeMap::new();
    let mut of_index: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in files {
        if let Some(index) = named.get(&path) {
            of_index.entry(index.clone()).or_default().push(path);
            continue;
        }
        let series = is_called(&path, "dcm").then(|| series_uid(&path)).flatten();
        if let Some(uid) = series {
            let key = (path.parent().map(Path::to_path_buf), uid);
            if let Some(&first) = of_series.get(&key) {
                let first: usize = first;
                slides[first].companions.push(path);
                continue;
            }
            of_series.insert(key, slides.len());
        }
        slides.push(SlideFile {
            path,
            companions: Vec::new(),
        });
    }
    for slide in &mut slides {
        slide
            .companions
            .extend(of_index.remove(&slide.path).unwrap_or_default());
    }
    slides
}

/// All that must lie beside each other for the slide at `path` to be read, the slide first. A folder stands for all that
/// is in it.
///
/// # Errors
/// A file or folder that cannot be read; a DICOM file that does not say its series.
pub fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![path.to_owned()];
    if is_called(path, "mrxs") {
        let folder = path.with_extension("");
        files.extend(folder.is_dir().then_some(folder));
    } else if is_index(path) {
        let named = files_of_index(path)?;
        files.extend(named.into_iter().filter(|file| file.is_file()));
    } else if is_called(path, "dcm") {
        let uid = series_uid(path).ok_or_else(|| {
            io::Error::other("its DICOM series cannot be told, so neither which files belong to it")
        })?;
        // Files of a series may have any name.
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let other = entry?.path();
            let is_itself = other.file_name() == path.file_name();
            if !is_itself && other.is_file() && series_uid(&other).as_deref() == Some(&uid) {
                files.push(other);
            }
        }
    }
    Ok(files)
}

fn is_called(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|own| own.eq_ignore_ascii_case(extension))
}

/// Whether the file is one that names the files of its slide.
fn is_index(path: &Path) -> bool {
    is_called(path, "vms") || is_called(path, "vmu")
}

/// The files that .vms and .vmu files name, with the file that names them.
fn files_of_indexes(files: &[PathBuf]) -> BTreeMap<PathBuf, PathBuf> {
    let mut named = BTreeMap::new();
    for path in files.iter().filter(|path| is_index(path)) {
        // One that cannot be read names nothing.
        for file in files_of_index(path).unwrap_or_default() {
            named.insert(file, path.clone());
        }
    }
    named
}

/// What a .vms or .vmu names, as if each value of it were a file: most are none.
fn files_of_index(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut text = Vec::new();
    File::open(path)?.take(INDEX_BYTES).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let values = text.lines().filter_map(|line| line.split_once('='));
    let values = values.map(|(_, value)| value.trim());
    // A name of a file beside it: a path would lead anywhere.
    let is_name = |value: &&str| !value.is_empty() && !value.contains('/');
    Ok(values
        .filter(is_name)
        .map(|value| path.with_file_name(value))
        .collect())
}

/// The SeriesInstanceUID (0020,000E) of a DICOM file in explicit little-endian encoding, in which
/// every whole-slide file is (PS3.5, sections 7.1 and A.2).
fn series_uid(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    let mut file = File::open(path).ok()?;
    // Most files of a folder are none: they cost no more than this.
    file.by_ref().take(132).read_to_end(&mut head).ok()?;
    if head.get(128..132)? != b"DICM" {
        return None;
    }
    file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    let mut at = 132;
    while let Some(element) = Element::at(&head, at) {
        match element.tag {
            [0x0020, 0x000e] => {
                let end = element.start.checked_add(element.length?)?;
                let text = String::from_utf8_lossy(head.get(element.start..end)?);
                return Some(text.trim_end_matches(['\0', ' ']).to_owned());
            }
            // Tags ascend: it is not there.
            tag if tag > [0x0020, 0x000e] => return None,
            _ => at = element.end(&head, 0)?,
        }
    }
    None
}

/// A data element, or an item of a sequence.
struct Element {
    tag: [u16; 2],
    /// Where its value begins.
    start: usize,
    /// Bytes of its value; `None` where a delimiter ends it.
    length: Option<usize>,
}

/// Group of items and delimiters of sequences.
const ITEMS: u16 = 0xfffe;
/// Types of values with a length of four bytes.
const LONG: [&[u8; 2]; 13] = [
    b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV",
];

impl Element {
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let tag = [u16_at(at)?, u16_at(at + 2)?];
        let (start, length) = if tag[0] == ITEMS {
            (at + 8, u32_at(at + 4)?)
        } else if LONG
            .iter()
            .any(|kind| bytes.get(at + 4..at + 6) == Some(&kind[..]))
        {
            (at + 12, u32_at(at + 8)?)
        } else {
            (at + 8, u16_at(at + 6)?.into())
        };
        Some(Self {
            tag,
            start,
            length: (length != u32::MAX).then_some(length as usize),
        })
    }

    /// Where the next element begins.
    fn end(&self, bytes: &[u8], depth: usize) -> Option<usize> {
        if let Some(length) = self.length {
            return self.start.checked_add(length);
        }
        if depth > MAX_DEPTH {
            return None;
        }
        let mut at = self.start;
        loop {
            let inner = Self::at(bytes, at)?;
            at = inner.end(bytes, depth + 1)?;
            // Ends of an item and of a sequence.
            if matches!(inner.tag, [ITEMS, 0xe00d | 0xe0dd]) {
                return Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: [u16; 2], kind: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = tag.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes.extend(kind);
        match kind {
            b"SQ" => bytes.extend([0, 0, 0xff, 0xff, 0xff, 0xff]),
            _ => bytes.extend((value.len() as u16).to_le_bytes()),
        }
        bytes.extend(value);
        bytes
    }

    fn item(kind: u16, length: u32) -> Vec<u8> {
        let tag = [ITEMS, kind].map(u16::to_le_bytes).concat();
        [tag, length.to_le_bytes().to_vec()].concat()
    }

    /// A file of `series` that refers to another series first, in a sequence of unknown length.
    fn dicom(series: &str) -> Vec<u8> {
        let other = element([0x0020, 0x000e], b"UI", b"1.2.9\0");
        let nested = [
            item(0xe000, u32::MAX),
            other,
            item(0xe00d, 0),
            item(0xe0dd, 0),
        ];
        [
            vec![0; 128],
            b"DICM".to_vec(),
            element([0x0002, 0x0010], b"UI", b"1.2.840.10008.1.2.1\0"),
            element([0x0008, 0x1115], b"SQ", &nested.concat()),
            element([0x0010, 0x0010], b"PN", b"A^B "),
            element([0x0020, 0x000e], b"UI", series.as_bytes()),
        ]
        .concat()
    }

    #[test]
    fn a_series_and_a_vms_are_one_slide_each() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, series) in [("a", "1.2.3\0"), ("b", "1.2.4\0"), ("c", "1.2.3\0")] {
            std::fs::write(at(&format!("{name}.dcm")), dicom(series)).unwrap();
        }
        std::fs::write(at("x.dcm"), b"no DICOM").unwrap();
        let vms = "[Virtual Microscope Specimen]\r\nImageFile=v.jpg\r\nImageFile(1,0)=v 1.jpg\r\nMacroImage=\r\n";
        std::fs::write(at("v.vms"), vms).unwrap();
        let names = [
            "a.dcm", "b.dcm", "c.dcm", "own.jpg", "v 1.jpg", "v.jpg", "v.vms", "x.dcm",
        ];
        let slides = group_files(names.iter().map(|name| at(name)).collect());
        let found: Vec<(PathBuf, Vec<PathBuf>)> =
            slides.into_iter().map(|s| (s.path, s.companions)).collect();
        let wanted: [(&str, &[&str]); 5] = [
            ("a.dcm", &["c.dcm"]),
            ("b.dcm", &[]),
            ("own.jpg", &[]),
            ("v.vms", &["v 1.jpg", "v.jpg"]),
            ("x.dcm", &[]),
        ];
        let wanted = wanted.map(|(name, with)| (at(name), with.iter().map(|n| at(n)).collect()));
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_slide_is_read_from_its_own_files_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, series) in [("a.dcm", "1.2.3\0"), ("b.dcm", "1.2.4\0"), ("c", "1.2.3\0")] {
            std::fs::write(at(name), dicom(series)).unwrap();
        }
        std::fs::write(at("x.dcm"), b"no DICOM").unwrap();
        let vms = "[Virtual Microscope Specimen]\nImageFile=v.jpg\nMapFile=gone.jpg\nNoLayers=1\nMacroImage=../x.dcm\n";
        std::fs::write(at("v.vms"), vms).unwrap();
        std::fs::write(at("v.jpg"), b"pixels").unwrap();
        std::fs::create_dir(at("m")).unwrap();
        std::fs::write(at("m.mrxs"), b"index").unwrap();
        std::fs::write(at("m.svs"), b"another slide").unwrap();
        for (slide, with) in [
            ("a.dcm", vec!["c"]),
            ("b.dcm", vec![]),
            ("v.vms", vec!["v.jpg"]),
            ("m.mrxs", vec!["m"]),
            ("m.svs", vec![]),
        ] {
            let wanted: Vec<PathBuf> = std::iter::once(slide).chain(with).map(at).collect();
            assert_eq!(files_of(&at(slide)).unwrap(), wanted, "{slide}");
        }
        assert!(files_of(&at("x.dcm")).is_err());
    }

    /// The files of highdicom and wsidicomizer, of one series in one folder.
    #[test]
    fn real_files_of_one_series_are_one_slide() {
        let shared = std::env::var("WSI_NUCLEI_SHARED").unwrap_or_else(|_| "../shared".into());
        let slides = Path::new(&shared).join("slides");
        let files = [
            "camelyon_1152x700_jpeg_tiledfull.dcm",
            "synthetic_boxes_0.dcm",
            "synthetic_boxes_1.dcm",
        ];
        let files = files.map(|name| slides.join(name));
        if !files[0].is_file() {
            return eprintln!("skipped: {} is not there", files[0].display());
        }
        let found = group_files(files.to_vec());
        assert_eq!(
            found.iter().map(|s| s.companions.len()).collect::<Vec<_>>(),
            [0, 1]
        );
    }

    #[test]
    fn damage_costs_nothing_but_the_grouping() {
        let bytes = dicom("1.2.3\0");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dcm");
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..2000 {
            let mut damaged = bytes[..rng.usize(..=bytes.len())].to_vec();
            for _ in 0..3 {
                if let Some(byte) = rng.choice(&mut damaged) {
                    *byte = rng.u8(..);
                }
            }
            std::fs::write(&path, &damaged).unwrap();
            series_uid(&path);
        }
    }
}
