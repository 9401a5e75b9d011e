//! The values that settings take, each read from text and written back by one type.
//!
//! In: what stands in a file, the environment or a flag. Out: a checked value, or a message that says what would do.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::geometry::Rect;
use crate::slide::mpp;

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
        mpp::parse(text).map(Mpp)
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

macro_rules! serialize_as_text {
    ($($type:ty),*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}
serialize_as_text!(ByteSize, Level0Box);

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
