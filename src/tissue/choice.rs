//! Where a run looks for tissue, as users say it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

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

/// What the tissue of a result is, and so what its densities are counted per mm² of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TissueSource {
    /// Found on the slide by Otsu's threshold.
    Found,
    /// Somebody drew a mask.
    Drawn,
    /// No tissue was looked for (`--mask none`): glass counts too.
    Everything,
    /// An image that is held whole: all of it counts.
    Image,
    /// An older store does not say.
    #[default]
    Unknown,
}

impl TissueSource {
    /// What a density is per mm² of, in words.
    pub fn denominator(self) -> &'static str {
        match self {
            TissueSource::Found => "tissue found on the slide",
            TissueSource::Drawn => "tissue drawn in the mask",
            TissueSource::Everything => {
                "everything, glass included: --mask none looks for no tissue"
            }
            TissueSource::Image => "the whole image, glass included",
            TissueSource::Unknown => "tissue in mask.png",
        }
    }

    /// The same for a column's head.
    pub fn short(self) -> &'static str {
        match self {
            TissueSource::Found | TissueSource::Drawn | TissueSource::Unknown => "tissue",
            TissueSource::Everything => "everything, glass included",
            TissueSource::Image => "the image",
        }
    }
}

impl From<&MaskChoice> for TissueSource {
    fn from(choice: &MaskChoice) -> Self {
        match choice {
            MaskChoice::Otsu => TissueSource::Found,
            MaskChoice::None => TissueSource::Everything,
            MaskChoice::File(_) => TissueSource::Drawn,
        }
    }
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
