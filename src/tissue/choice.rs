//! Where a run looks for tissue, as users say it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

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

impl Serialize for MaskChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
