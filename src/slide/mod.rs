//! Slides and images as pixels at the model's scale.
//!
//! In: a path and the µm/px policy. Out: [`SlideInfo`], [`frames::Frames`] and proc pixels in fixed blocks
//! ([`blocks::ProcImage`]). One trait, two readers: OpenSlide and plain images. Never decides what is tissue and never
//! lets a pixel depend on who asked for it.

pub mod blocks;
mod cache;
pub mod frames;
mod identity;
pub mod level;
pub mod mpp;
mod openslide;
mod overview;
pub mod plain;
pub(crate) mod resample;
pub mod thumb;

pub use blocks::ProcImage;
pub use frames::Frames;
pub use mpp::{Mpp, resolve_mpp};
pub(crate) use overview::overview;
pub use resample::FILTER_NAME;
pub use thumb::thumb;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// What can go wrong with a slide. Messages name the file, the place and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlideError {
    #[error("{}: no such file: check the path", path.display())]
    Missing { path: PathBuf },
    #[error("{}: cannot be opened as a slide or image: {reason}", path.display())]
    Unsupported { path: PathBuf, reason: String },
    #[error("{}: level {level}, {w} x {h} px at ({x_px}, {y_px}) cannot be read: {reason}", path.display())]
    Read {
        path: PathBuf,
        level: usize,
        x_px: i64,
        y_px: i64,
        w: u32,
        h: u32,
        reason: String,
    },
    #[error("{}: has no µm/px and no objective power: give it with --mpp (0.25 for a 40x scan, 0.5 for 20x)", path.display())]
    NoMpp { path: PathBuf },
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

/// One pyramid level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub width_px: u64,
    pub height_px: u64,
    /// Level-0 px a px of this level.
    pub downsample: f64,
}

/// What the reader sees in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlideInfo {
    pub path: PathBuf,
    /// OpenSlide's vendor, or `image` for a plain image.
    pub vendor: String,
    pub levels: Vec<Level>,
    /// µm/px of level 0 as the file states it, sensible or not: [`resolve_mpp`] decides. Always `None` for a plain
    /// image, whose resolution tags mean paper.
    pub mpp: Option<[f64; 2]>,
    pub objective_power: Option<f64>,
    /// `openslide.bounds`: x, y, width, height of the non-empty part, level-0 px.
    pub bounds_px: Option<[u64; 4]>,
    /// Colour under transparent pixels.
    pub background: [u8; 3],
    pub associated: Vec<String>,
    pub properties: BTreeMap<String, String>,
    pub file_bytes: u64,
    /// The slide's identity, never its mtime: OpenSlide's quickhash-1; where that is absent the SHA-256 of the file's
    /// size, first and last MiB; for a plain image the SHA-256 of the whole file.
    pub quickhash: String,
}

/// A source of level pixels. Two implementations: `openslide` and `plain`.
pub trait SlideReader: Send + Sync {
    fn info(&self) -> &SlideInfo;

    /// RGB of the `w` x `h` px of `level` whose upper left corner is (`x_px`, `y_px`) in that level's own px;
    /// alpha composited on the background. The window lies inside the level.
    fn read_level(
        &self,
        level: usize,
        x_px: u64,
        y_px: u64,
        w: u32,
        h: u32,
    ) -> Result<RgbImage, SlideError>;

    /// An associated image (label, macro, thumbnail), if the file has it.
    fn associated(&self, name: &str) -> Result<Option<RgbImage>, SlideError>;
}

/// Opens `path` with the reader that fits it: OpenSlide for what it recognises, else a plain image.
///
/// # Errors
/// [`SlideError::Missing`] and [`SlideError::Unsupported`] with what either reader said and what to do.
pub fn open(path: &Path) -> Result<Box<dyn SlideReader>, SlideError> {
    let unsupported = |reason: &str| SlideError::Unsupported {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    };
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => SlideError::Missing {
            path: path.to_path_buf(),
        },
        _ => unsupported(&format!("{e}: check the permissions")),
    })?;
    if meta.is_dir() {
        return Err(unsupported(
            "it is a folder: name the slide file inside it (folders of slides are searched with -r)",
        ));
    }
    if !meta.is_file() {
        return Err(unsupported("it is not a regular file: name a slide file"));
    }
    if meta.len() == 0 {
        return Err(unsupported("the file is empty: copy it again"));
    }
    match openslide::OpenSlideReader::recognise(path) {
        None => Ok(Box::new(plain::PlainReader::open(path)?)),
        // A tiled TIFF that OpenSlide cannot show (16 bit, say) may still be a plain image.
        Some(vendor) if vendor == "generic-tiff" => openslide::OpenSlideReader::open(path, &vendor)
            .map_or_else(
                |slide_error| match plain::PlainReader::open(path) {
                    Ok(reader) => Ok(Box::new(reader) as Box<dyn SlideReader>),
                    Err(_) => Err(slide_error),
                },
                |reader| Ok(Box::new(reader) as Box<dyn SlideReader>),
            ),
        Some(vendor) => Ok(Box::new(openslide::OpenSlideReader::open(path, &vendor)?)),
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
