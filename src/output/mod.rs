//! One writer per format.
//!
//! In: a [`SlideResult`] and pictures. Out: files, each written whole or not at all.
//! Never reads a slide, and never writes a clock, a host or a random number into a result (run.json is no result).

pub mod crops;
mod formats;
pub mod geojson;
pub mod gzip;
pub mod labels;
pub mod labels_ome_zarr;
pub mod mat5;
pub mod nuclei_csv;
pub mod nuclei_json;
pub mod parquet;
pub mod pictures;
pub mod plausible;
pub mod qupath_tsv;
pub mod raw_map;
pub mod report_html;
pub mod summary_json;
pub mod table;
pub mod tables;
pub mod tutorial_csv;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::report::maps;
use crate::report::slide::Crop;
use crate::result::SlideResult;
use crate::store::atomic;
use crate::tissue::TissueMask;

pub use formats::{Format, Formats, GeojsonFrame, Needs, Units};
pub use tables::write_nuclei;

use formats::Writer;

/// A file that could not be written. Messages name the file, what happened and the cure.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The file cannot be written: its folder, rights or space.
    #[error("{}: cannot be written: {source}: check the folder, its rights and the free space", path.display())]
    Write {
        /// The file to be written.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot hold the result, or a file that it is made from is missing or damaged.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong, and the cure.
        reason: String,
    },
}

/// The pictures that go with a result, read by someone else.
pub struct Pictures {
    /// The whole slide, small.
    pub thumb: RgbImage,
    /// Its tissue mask.
    pub mask: TissueMask,
    /// The whole slide as overlay.jpg shows it; outlines are drawn over it. None: over the thumb.
    pub overlay: Option<RgbImage>,
    /// Fields that `crops::choose` named, with their level-0 pixels; none: no crops are written.
    pub crops: Vec<(crops::Field, RgbImage)>,
    /// Whether a strip below overlay.jpg names the types and has a scale bar; without it the picture keeps its size.
    pub legend: bool,
    /// The crops as the report shows them: empty until they are written.
    pub captions: Vec<Crop>,
}

impl Pictures {
    /// The thumbnail and the mask alone, with a legend below the overlay.
    pub fn new(thumb: RgbImage, mask: TissueMask) -> Self {
        Self {
            thumb,
            mask,
            overlay: None,
            crops: Vec::new(),
            legend: true,
            captions: Vec::new(),
        }
    }
}

/// What is written, and how.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The files to write.
    pub formats: &'a [Format],
    /// Of lengths and areas in tables.
    pub units: Units,
    /// Where nuclei.geojson has its origin.
    pub geojson_frame: GeojsonFrame,
}

/// Writes every file of a slide but run.json into `folder`: the chosen formats, summary.json, thumb.png, mask.png.
///
/// # Errors
/// [`OutputError`] for the first file that cannot be written; each file is there whole or not at all.
pub fn write_all(
    result: &SlideResult,
    mut pictures: Pictures,
    choice: Choice<'_>,
    folder: &Path,
) -> Result<(), OutputError> {
    let mut small = pictures.thumb.clone();
    if let Some(region) = &result.meta.region {
        maps::draw_region(&mut small, region, result.frames().level0_size_px);
    }
    let cells = pictures::mask_picture(&pictures.mask);
    // Side by side: one thread alone draws and packs a picture.
    let (drawn, (measured, packed)) = rayon::join(
        || write_pictures(result, &mut pictures, choice.formats, folder),
        || {
            rayon::join(
                || write_nuclei(result, choice, folder),
                || {
                    pictures::write_png(&small.into(), &folder.join("thumb.png"))?;
                    pictures::write_png(&cells.into(), &folder.join("mask.png"))
                },
            )
        },
    );
    drawn?;
    let measured = measured?;
    packed?;
    let Pictures {
        thumb,
        mask,
        captions,
        ..
    } = pictures;
    let summary = summary_json::summary(result, &measured.medians);
    summary_json::write(&summary, &folder.join("summary.json"))?;
    let paged = |format: &Format| matches!(format.writer(), Writer::Page);
    if choice.formats.iter().any(paged) {
        let results = report_html::Results {
            summary,
            measured,
            thumb,
            mask,
            region: result.meta.region.clone(),
            crops: captions,
        };
        report_html::write(results, &folder.join("report.html"))?;
    }
    Ok(())
}

fn write_pictures(
    result: &SlideResult,
    pictures: &mut Pictures,
    formats: &[Format],
    folder: &Path,
) -> Result<(), OutputError> {
    for format in formats {
        if let Writer::Picture(write) = format.writer() {
            write(result, pictures, folder)?;
        }
    }
    Ok(())
}

/// Makes a folder for results, with its parents.
pub fn make_folder(path: &Path) -> Result<(), OutputError> {
    std::fs::create_dir_all(path).map_err(|source| OutputError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Writes one file whole or not at all.
pub(crate) fn write_file(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), OutputError> {
    atomic::write(path, content).map_err(|source| OutputError::Write {
        path: path.to_owned(),
        source,
    })
}

/// To 6 significant digits, so that tables stay readable; the same text on every machine. `None` for what is no number.
pub fn significant(value: f64) -> Option<f64> {
    if !value.is_finite() {
        return None;
    }
    by_arithmetic(value).or_else(|| {
        // Scientific notation rounds decimally, once.
        format!("{value:.5e}").parse().ok()
    })
}

/// [`significant`] by arithmetic, where its error cannot change a digit; text is too slow for the 50 million numbers of a
/// million nuclei.
fn by_arithmetic(value: f64) -> Option<f64> {
    /// Whole powers of ten, all exact.
    const POWERS: [f64; 15] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14,
    ];
    let size = value.abs();
    if size == 0.0 {
        return Some(value);
    }
    let shift = 5 - size.log10().floor() as i32;
    let power = *POWERS.get(shift.unsigned_abs() as usize)?;
    let scaled = match shift >= 0 {
        true => size * power,
        false => size / power,
    };
    // The logarithm may be wrong next to a power of ten, and the product by 1e-10, which decides near a tie.
    let near_a_tie = (scaled.fract() - 0.5).abs() < 1e-6;
    if near_a_tie || !(1e5..1e6).contains(&scaled) {
        return None;
    }
    // Both are exact, so one operation gives the double next to the decimal, as reading its text would.
    let rounded = match shift >= 0 {
        true => scaled.round() / power,
        false => scaled.round() * power,
    };
    Some(rounded.copysign(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_are_those_of_decimal_text() {
        let mut rng = fastrand::Rng::with_seed(11);
        let by_text = |value: f64| format!("{value:.5e}").parse::<f64>().unwrap();
        let mut cases = vec![
            0.0,
            -0.0,
            1e-300,
            1e300,
            1e15,
            -1e-9,
            0.5,
            999_999.5,
            999_999.499,
        ];
        // Ties, and what lies next to them and to powers of ten.
        for exponent in -12..12 {
            for digits in [100_000.5, 123_456.5, 999_999.5, 100_000.0] {
                let value = digits * 10f64.powi(exponent);
                cases.extend([value, value.next_up(), value.next_down(), -value]);
            }
        }
        cases.extend((0..200_000).map(|_| (rng.f64() - 0.5) * 10f64.powi(rng.i32(-16..16))));
        for value in cases {
            let found = significant(value).unwrap();
            assert_eq!(found.to_bits(), by_text(value).to_bits(), "{value:e}");
        }
        assert_eq!(
            (significant(f64::NAN), significant(f64::INFINITY)),
            (None, None)
        );
    }
}
