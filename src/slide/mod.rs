//! Slides and images as pixels at the model's scale.
//!
//! In: a path and the µm/px policy. Out: [`SlideInfo`], [`frames::Frames`] and proc pixels in fixed
//! blocks ([`blocks::ProcImage`]). Never decides what is tissue, and never lets a pixel depend on
//! who asked for it.
//!
//! A new reader is a file of this folder with a [`SlideReader`], and a row of the table `READERS`.

pub mod blocks;
mod cache;
pub mod companions;
mod error;
pub mod frames;
#[cfg(feature = "openslide")]
mod identity;
mod jpeg;
pub mod level;
pub mod mpp;
mod ome;
#[cfg(feature = "openslide")]
mod openslide;
mod overview;
pub mod picture;
pub mod plain;
pub(crate) mod resample;
pub mod thumb;
mod tiff_image;
#[cfg(feature = "openslide")]
mod tiff_tiles;

pub use error::SlideError;
pub use frames::Frames;
pub(crate) use overview::overview;
pub use resample::FILTER_NAME;
pub use thumb::thumb;
pub(crate) use tiff_image::is_tiff;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// One pyramid level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub width_px: u64,
    pub height_px: u64,
    /// Level-0 px per px of this level.
    pub downsample: f64,
}

/// What the reader sees in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlideInfo {
    /// The file that was opened.
    #[serde(serialize_with = "serialize_path")]
    pub path: PathBuf,
    /// The file format: OpenSlide's vendor, or `image` for a plain image.
    pub vendor: String,
    /// The pyramid, from level 0 (the finest) to the coarsest.
    pub levels: Vec<Level>,
    /// µm/px of level 0 as the file states it, plausible or not: `mpp::resolve_mpp` decides. Always
    /// `None` for a plain image, whose resolution tags are meant for printing.
    pub mpp: Option<[f64; 2]>,
    /// µm/px of level 0 in x and y as OME-XML states it: it counts where `mpp` says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_mpp: Option<[f64; 2]>,
    /// Power of the objective, as 40, where the file states it.
    pub objective_power: Option<f64>,
    /// `openslide.bounds`: x, y, width, height of the non-empty part, level-0 px.
    pub bounds_px: Option<[u64; 4]>,
    /// Colour under transparent pixels.
    pub background: [u8; 3],
    /// Names of the associated images (label, macro, thumbnail).
    pub associated: Vec<String>,
    /// OpenSlide's properties of the file, by name; empty for a plain image.
    pub properties: BTreeMap<String, String>,
    /// What the user should know about how the file is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// What identifies the slide, never its modification time: OpenSlide's quickhash-1; without
    /// one, the SHA-256 of the file's size and of its first and last MiB; for a plain image, the
    /// SHA-256 of the whole file.
    pub quickhash: String,
}

/// A path as text: a name of other bytes than UTF-8 is told as nearly as text can.
fn serialize_path<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&path.to_string_lossy())
}

/// A source of level pixels.
pub trait SlideReader: Send + Sync {
    /// What is known about the slide.
    fn info(&self) -> &SlideInfo;

    /// RGB of the `w` x `h` px of `level` whose upper left corner is (`x_px`, `y_px`) in that
    /// level's own px, with transparency laid over the background. The window must lie inside the
    /// level.
    ///
    /// # Errors
    /// [`SlideError::Read`] where the window cannot be read.
    fn read_level(
        &self,
        level: usize,
        x_px: u64,
        y_px: u64,
        w: u32,
        h: u32,
    ) -> Result<RgbImage, SlideError>;
}

/// How far the resolution that a file states can be trusted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Resolution {
    /// A microscope wrote it.
    Microscope,
    /// A microscope wrote it if it is at most so many µm/px; a coarser one is a printer's.
    #[cfg_attr(not(feature = "openslide"), expect(dead_code))]
    MicroscopeUpTo(f64),
    /// It is meant for printing: it says nothing about the tissue.
    Printer,
}

type Open = fn(&Path, &str) -> Result<Box<dyn SlideReader>, SlideError>;

/// One way to read slide files.
struct Reader {
    /// A slide belongs to the reader of its vendor's name, or else to `openslide`.
    name: &'static str,
    /// Lower-case extensions of the files that a folder is searched for.
    extensions: &'static [&'static str],
    /// The vendor, if this reader knows the file.
    detect: fn(&Path) -> Option<String>,
    /// Opens a file that `detect` knew, given its vendor.
    open: Open,
    resolution: Resolution,
    /// Whether the readers below may try a file that this one knows but cannot open.
    others_may_open: bool,
}

/// All readers, in the order in which they are asked.
static READERS: &[Reader] = &[
    #[cfg(feature = "openslide")]
    Reader {
        name: "openslide",
        extensions: &[
            "svs", "tif", "tiff", "ndpi", "vms", "vmu", "scn", "mrxs", "svslide", "bif", "czi",
            "dcm",
        ],
        detect: |path| openslide::detect(path).filter(|vendor| vendor != openslide::GENERIC_TIFF),
        open: openslide::open,
        resolution: Resolution::Microscope,
        others_may_open: false,
    },
    #[cfg(feature = "openslide")]
    Reader {
        name: openslide::GENERIC_TIFF,
        extensions: &["tif", "tiff"],
        detect: |path| {
            openslide::detect(path).filter(|vendor| {
                vendor == openslide::GENERIC_TIFF && !tiff_image::is_not_for_openslide(path)
            })
        },
        open: openslide::open,
        // Printers have 72 to 600 dpi: 353 to 42 µm/px.
        resolution: Resolution::MicroscopeUpTo(20.0),
        // A tiled TIFF that OpenSlide cannot show (16 bit, say) may still be a plain image.
        others_may_open: true,
    },
    Reader {
        name: plain::VENDOR,
        extensions: IMAGE_EXTENSIONS,
        detect: |_| Some(plain::VENDOR.to_owned()),
        open: |path, _| Ok(Box::new(plain::PlainReader::open(path, None)?)),
        resolution: Resolution::Printer,
        others_may_open: false,
    },
];

/// Extensions of plain images: what a folder is searched for where images are asked for.
pub const IMAGE_EXTENSIONS: &[&str] = &["png", "jpg", "jpeg", "tif", "tiff"];

/// Extensions of all readers, each once: what a folder is searched for where slides are asked for.
pub fn slide_extensions() -> &'static [&'static str] {
    static ALL: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let mut all = Vec::new();
        for &extension in READERS.iter().flat_map(|reader| reader.extensions) {
            if !all.contains(&extension) {
                all.push(extension);
            }
        }
        all
    });
    &ALL
}

/// How far the resolution of a slide of `vendor` can be trusted.
fn resolution_of(vendor: &str) -> Resolution {
    let reader = READERS.iter().find(|reader| reader.name == vendor);
    reader.map_or(Resolution::Microscope, |reader| reader.resolution)
}

/// Opens `path` with the first reader that knows it: OpenSlide for whole slides, then plain images.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("field.png");
/// image::RgbImage::new(30, 20).save(&path)?;
///
/// let reader = wsi_nuclei::open_slide(&path)?;
/// assert_eq!(reader.info().vendor, "image");
/// assert_eq!(reader.info().levels[0].width_px, 30);
/// let corner = reader.read_level(0, 20, 10, 10, 10)?;
/// assert_eq!(corner.dimensions(), (10, 10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`SlideError::Missing`], or [`SlideError::Unsupported`] with a reader's reason and the cure.
pub fn open(path: &Path) -> Result<Box<dyn SlideReader>, SlideError> {
    check_file(path)?;
    let mut first_error = None;
    for reader in READERS {
        let Some(vendor) = (reader.detect)(path) else {
            continue;
        };
        match (reader.open)(path, &vendor) {
            Err(error) => {
                let error = first_error.get_or_insert(error);
                if !reader.others_may_open {
                    return Err(error.clone());
                }
            }
            opened => return opened,
        }
    }
    Err(first_error.unwrap_or_else(|| SlideError::unsupported(path, "no reader knows its format")))
}

/// [`open`], or of a TIFF the page of number `page` alone, counted from 1, as a plain image.
///
/// # Errors
/// As [`open`], and a page that is not there.
pub fn open_page(path: &Path, page: Option<usize>) -> Result<Box<dyn SlideReader>, SlideError> {
    if page.is_none() {
        return open(path);
    }
    check_file(path)?;
    Ok(Box::new(plain::PlainReader::open(path, page)?))
}

/// Refuses what no reader needs to look at: a path that is no file, or an empty file.
fn check_file(path: &Path) -> Result<(), SlideError> {
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => SlideError::Missing {
            path: path.to_path_buf(),
        },
        _ => SlideError::unsupported(path, format!("{e}: check the permissions")),
    })?;
    let reason = if meta.is_dir() {
        "it is a folder: name the slide file inside it (folders of slides are searched with -r)"
    } else if !meta.is_file() {
        "it is not a regular file: name a slide file"
    } else if meta.len() == 0 {
        "the file is empty: copy it again"
    } else {
        return Ok(());
    };
    Err(SlideError::unsupported(path, reason))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(all(test, feature = "openslide"))]
mod tests;
