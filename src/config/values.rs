//! The values that settings take, each read from text and written back by one type.
//!
//! In: what stands in a file, the environment or a flag. Out: a checked value, or a message that says what would do.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::geometry::Rect;
pub use crate::model::device::DeviceChoice;
pub use crate::model::tta::Tta;

/// A number, or `auto`: the program chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auto<T> {
    Auto,
    Is(T),
}

impl<T: Copy> Auto<T> {
    /// The number, if one was given.
    pub fn given(&self) -> Option<T> {
        match self {
            Auto::Auto => None,
            Auto::Is(value) => Some(*value),
        }
    }
}

impl<T: FromStr> FromStr for Auto<T>
where
    T::Err: fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Auto::Auto),
            _ => text
                .parse()
                .map(Auto::Is)
                .map_err(|reason| format!("{reason} (a number, or auto)")),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Auto<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auto::Auto => f.write_str("auto"),
            Auto::Is(value) => value.fmt(f),
        }
    }
}

/// A count of at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u32);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u32>() {
            Ok(0) => Err("must be at least 1".into()),
            Ok(n) => Ok(Count(n)),
            Err(reason) => Err(reason.to_string()),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// µm a pixel: 0.01 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mpp(pub f64);

impl FromStr for Mpp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(mpp) if (0.01..=100.0).contains(&mpp) => Ok(Mpp(mpp)),
            Ok(_) => Err("must lie between 0.01 and 100 µm a pixel".into()),
            Err(reason) => Err(reason.to_string()),
        }
    }
}

impl fmt::Display for Mpp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes, as `8GiB`, `512MiB`, `2GB` or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The least budget in which the engine can hold a model and one tile.
pub const LEAST_MEMORY: ByteSize = ByteSize(256 << 20);

const UNITS: [(&str, u64); 10] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size: write 8GiB, 512MiB or a number of bytes");
        let (number, unit) = UNITS
            .iter()
            .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)))
            .unwrap_or((text, 1));
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let bytes = number * unit as f64;
        if !(bytes.is_finite() && (0.0..1e18).contains(&bytes)) {
            return Err(wrong());
        }
        Ok(ByteSize(bytes.round() as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bytes) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Where tissue is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskChoice {
    /// Found on the slide.
    Otsu,
    /// Everything is tissue.
    None,
    /// A picture over the whole slide, > 0 is tissue.
    File(PathBuf),
}

impl FromStr for MaskChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "" => return Err("write otsu, none or a PNG file".into()),
            "otsu" => MaskChoice::Otsu,
            "none" => MaskChoice::None,
            file => MaskChoice::File(file.into()),
        })
    }
}

impl fmt::Display for MaskChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaskChoice::Otsu => f.write_str("otsu"),
            MaskChoice::None => f.write_str("none"),
            MaskChoice::File(path) => path.display().fmt(f),
        }
    }
}

/// A box of level-0 px, written `x,y,w,h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level0Box(pub Rect);

impl FromStr for Level0Box {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<i32>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        match numbers.as_deref() {
            Ok(&[x, y, w, h]) if x >= 0 && y >= 0 && w > 0 && h > 0 => {
                Ok(Level0Box(Rect::new(x, y, w, h)))
            }
            _ => Err(format!(
                "`{text}` is no box: write x,y,w,h in level-0 pixels, as 1000,2000,512,512"
            )),
        }
    }
}

impl fmt::Display for Level0Box {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rect { x, y, w, h } = self.0;
        write!(f, "{x},{y},{w},{h}")
    }
}

/// This process's share of each slide's tiles: `index` of `of`, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    pub index: u32,
    pub of: u32,
}

impl Shard {
    /// Whether the tile at `place` of the plan is of this share: neighbours go to different shares, so that dense
    /// tissue is shared, too.
    pub fn has(&self, place: usize) -> bool {
        place % (self.of.max(1) as usize) == self.index as usize
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        match parts {
            Some((index, of)) if index < of => Ok(Shard { index, of }),
            Some((index, of)) => Err(format!(
                "shard {index} of {of} does not exist: i/n counts from 0, so i must be below n"
            )),
            None => Err(format!("`{text}` is no shard: write i/n, as 0/4")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// Arithmetic of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    Auto,
    F32,
    Bf16,
    F16,
}

/// Rules of post-processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PostprocRules {
    /// Fixed scales: the answer does not depend on the tiling.
    Default,
    /// hover_net's per-map rules, for single maps and images.
    Reference,
}

/// Unit of lengths and areas in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// µm and µm².
    Um,
    /// Pixels at the model's µm/px.
    Px,
}

/// Where nuclei.geojson has its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GeojsonFrame {
    /// Level-0 px from the corner of openslide.bounds where the slide has them: what QuPath shows.
    Qupath,
    /// Level-0 px from the slide's own corner.
    Level0,
}

/// What the user sees while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProgressMode {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    Plain,
    /// One JSON object a line on standard error.
    Json,
    None,
}

/// A file of nuclei to write beside summary.json, run.json, thumb.png and mask.png.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// nuclei.json, hover_net's schema.
    Json,
    /// nuclei.csv, one row a nucleus.
    Csv,
    /// nuclei.parquet, the same columns.
    Parquet,
    /// nuclei.geojson, for QuPath.
    Geojson,
    /// The same, compressed.
    #[value(name = "geojson.gz")]
    #[serde(rename = "geojson.gz")]
    GeojsonGz,
    /// overlay.png, outlines over the picture.
    Overlay,
    /// crops/, fields at full resolution, outlined: the densest, the least certain, some at random.
    Crops,
    /// report.html, one page for the eye.
    Report,
    /// labels.ome.zarr/, an OME-Zarr 0.5 pyramid of ids and one of types.
    #[serde(rename = "ome-zarr")]
    #[value(name = "ome-zarr")]
    OmeZarr,
}

impl Format {
    /// As `--format` has it; a table is nuclei.NAME.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
            Format::Geojson => "geojson",
            Format::GeojsonGz => "geojson.gz",
            Format::Overlay => "overlay",
            Format::Crops => "crops",
            Format::Report => "report",
            Format::OmeZarr => "ome-zarr",
        }
    }
}

/// Formats, sorted, each once; written `json,csv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formats(pub Vec<Format>);

impl FromStr for Formats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut formats = Vec::new();
        for name in text.split(',').map(str::trim) {
            let format = <Format as clap::ValueEnum>::from_str(name, false).map_err(|_| {
                let all = <Format as clap::ValueEnum>::value_variants();
                let all: Vec<&str> = all.iter().map(|format| format.name()).collect();
                format!("`{name}` is no format: choose from {}", all.join(", "))
            })?;
            formats.push(format);
        }
        formats.sort();
        formats.dedup();
        Ok(Formats(formats))
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, format) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { "," } else { "" }, format.name())?;
        }
        Ok(())
    }
}

macro_rules! serialize_as_text {
    ($($type:ty),*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}
serialize_as_text!(
    DeviceChoice,
    ByteSize,
    MaskChoice,
    Level0Box,
    Shard,
    Formats
);

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl Serialize for Mpp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Auto::Auto => serializer.serialize_str("auto"),
            Auto::Is(value) => value.serialize(serializer),
        }
    }
}
