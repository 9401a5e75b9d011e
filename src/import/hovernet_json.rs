//! `{"mag", "nuc": {"1": {"bbox", "centroid", "contour", "type_prob", "type"}, …}, …}`: hover_net's JSON and ours.
//!
//! In: a file, read as a stream, twice: what stands after the nuclei says how to take them. Out: a [`Header`], then one
//! [`Entry`] a nucleus, or why it is none. What does not parse is refused with its byte. Never holds the document.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use super::{ImportError, type_info};
use crate::digest::hex;
use crate::lenient_json::{self, LenientJson};
use crate::model::TypeInfo;

const BUFFER_BYTES: usize = 1 << 18;

/// What the file says beside its nuclei.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    pub mag: Option<f64>,
    pub mpp: Option<f64>,
    pub mpp_xy: Option<[f64; 2]>,
    /// Width and height, px.
    pub size_px: Option<[u64; 2]>,
    pub bounds_px: Option<[u64; 4]>,
    pub proc_per_level0: Option<[f64; 2]>,
    /// Px of the file per level-0 px, where `hovernet wsi` wrote it at another magnification than the slide's.
    pub px_per_level0: Option<[f64; 2]>,
    /// Width and height of the slide, level-0 px, where the file counts in others.
    pub level0_size_px: Option<[u64; 2]>,
    pub types: Option<Vec<TypeInfo>>,
    pub model_name: Option<String>,
    pub model_sha256: Option<String>,
    /// The slide's quickhash.
    pub slide: Option<String>,
    /// Nuclei.
    pub count: usize,
    /// Of the file's bytes, hex.
    pub sha256: String,
}

/// One nucleus. Box and centroid are left: hover_net's are not always right, and both follow from the outline.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    pub contour: Vec<[f64; 2]>,
    #[serde(default)]
    pub type_prob: Option<f64>,
    #[serde(default, rename = "type", deserialize_with = "number")]
    pub kind: Option<f64>,
}

/// A number, or the text of one, as `"40"` and `"40x"`.
fn number<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(value)?;
    number_of(value.as_ref()).map_err(D::Error::custom)
}

fn number_of(value: Option<&serde_json::Value>) -> Result<Option<f64>, String> {
    let parsed = match value {
        None | Some(serde_json::Value::Null) => return Ok(None),
        Some(serde_json::Value::String(text)) => {
            let text = text.trim().trim_end_matches(['x', 'X']);
            text.parse().ok().filter(|v: &f64| v.is_finite())
        }
        Some(value) => value.as_f64(),
    };
    let shown = value.map(ToString::to_string).unwrap_or_default();
    parsed.map(Some).ok_or(format!("{shown} is not a number"))
}

/// Reads everything but the nuclei, which are counted.
pub fn header(path: &Path) -> Result<Header, ImportError> {
    let mut keys = Keys::default();
    let sha256 = parse(path, &mut keys)?;
    let mut header = Header {
        count: keys.nuclei,
        sha256,
        ..Header::default()
    };
    header
        .take(&keys.others)
        .map_err(|reason| ImportError::Content {
            path: path.to_owned(),
            reason,
        })?;
    Ok(header)
}

/// Hands every nucleus to `each`, in the file's order, or why it is none; what `each` refuses is an error at that place.
pub fn for_each(
    path: &Path,
    each: impl FnMut(&str, Result<Entry, String>) -> Result<(), String>,
) -> Result<(), ImportError> {
    parse(path, &mut Entries(each)).map(|_| ())
}

/// What takes the values of a document; each must read its value.
trait Taker {
    fn nucleus<'de, A: MapAccess<'de>>(&mut self, id: &str, map: &mut A) -> Result<(), A::Error>;
    fn other<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error>;
}

#[derive(Default)]
struct Keys {
    nuclei: usize,
    others: serde_json::Map<String, serde_json::Value>,
}

impl Taker for Keys {
    fn nucleus<'de, A: MapAccess<'de>>(&mut self, _: &str, map: &mut A) -> Result<(), A::Error> {
        self.nuclei += 1;
        map.next_value::<IgnoredAny>().map(|_| ())
    }

    fn other<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        self.others.insert(key, map.next_value()?);
        Ok(())
    }
}

struct Entries<F>(F);

impl<F: FnMut(&str, Result<Entry, String>) -> Result<(), String>> Taker for Entries<F> {
    fn nucleus<'de, A: MapAccess<'de>>(&mut self, id: &str, map: &mut A) -> Result<(), A::Error> {
        let value: serde_json::Value = map.next_value()?;
        let entry = serde_json::from_value(value).map_err(|error| error.to_string());
        (self.0)(id, entry).map_err(A::Error::custom)
    }

    fn other<'de, A: MapAccess<'de>>(&mut self, _: String, map: &mut A) -> Result<(), A::Error> {
        map.next_value::<IgnoredAny>().map(|_| ())
    }
}

impl Header {
    /// The keys that mean something here; a value of another kind is an error.
    fn take(&mut self, keys: &serde_json::Map<String, serde_json::Value>) -> Result<(), String> {
        fn read<T: for<'de> Deserialize<'de>>(
            keys: &serde_json::Map<String, serde_json::Value>,
            key: &str,
        ) -> Result<Option<T>, String> {
            let Some(value) = keys.get(key).filter(|value| !value.is_null()) else {
                return Ok(None);
            };
            let read = serde_json::from_value(value.clone());
            read.map(Some).map_err(|e| format!("`{key}`: {e}"))
        }
        for (key, place) in [("mag", &mut self.mag), ("mpp", &mut self.mpp)] {
            *place = number_of(keys.get(key)).map_err(|e| format!("`{key}`: {e}"))?;
        }
        self.mpp_xy = read(keys, "mpp_xy")?;
        self.proc_per_level0 = read(keys, "proc_per_level0")?;
        self.px_per_level0 = read(keys, "px_per_level0")?;
        self.level0_size_px = read(keys, "level0_size")?;
        self.bounds_px = read(keys, "bounds")?;
        self.slide = read(keys, "slide")?;
        self.size_px = match (read(keys, "width")?, read(keys, "height")?) {
            (Some(width), Some(height)) => Some([width, height]),
            _ => None,
        };
        if let Some(types) = keys.get("types").filter(|types| !types.is_null()) {
            let read = type_info::parse(&types.to_string());
            self.types = Some(read.map_err(|e| format!("`types`: {e}"))?);
        }
        let model = keys.get("model").and_then(|model| model.as_object());
        let text = |key: &str| Some(model?.get(key)?.as_str()?.to_owned());
        self.model_name = text("name");
        self.model_sha256 = text("sha256");
        Ok(())
    }
}

/// Walks through the document and returns the SHA-256 of its bytes.
fn parse(path: &Path, taker: &mut impl Taker) -> Result<String, ImportError> {
    let unreadable = |source| ImportError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut hashed = Hashed {
        inner: file,
        hash: Sha256::new(),
    };
    let nucleus = RefCell::new(None);
    let mut found = false;
    let outcome = {
        let reader = BufReader::with_capacity(BUFFER_BYTES, &mut hashed);
        let mut json = serde_json::Deserializer::from_reader(LenientJson::new(reader));
        let document = Document {
            taker,
            nucleus: &nucleus,
            found: &mut found,
        };
        document.deserialize(&mut json).and_then(|()| json.end())
    };
    match outcome {
        Ok(()) if found => Ok(hex(&hashed.hash.finalize())),
        Ok(()) => Err(ImportError::Content {
            path: path.to_owned(),
            reason: "has no `nuc`: not a file of nuclei as hover_net and this program write them"
                .into(),
        }),
        Err(error) if error.is_io() => Err(unreadable(error.into())),
        Err(error) => Err(ImportError::Broken {
            path: path.to_owned(),
            byte: byte_of(path, &error).map_err(unreadable)?,
            nucleus: nucleus.into_inner(),
            reason: reason(&error),
        }),
    }
}

/// The byte, from 0, at which reading stopped: serde_json counts lines and columns.
fn byte_of(path: &Path, error: &serde_json::Error) -> std::io::Result<u64> {
    let file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    if error.is_eof() {
        return file.get_ref().metadata().map(|meta| meta.len());
    }
    lenient_json::byte_of(file, error.line(), error.column().saturating_sub(1))
}

/// The error without its line and column.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// The outer object.
struct Document<'a, T> {
    taker: &'a mut T,
    /// Key of the nucleus at hand.
    nucleus: &'a RefCell<Option<String>>,
    found: &'a mut bool,
}

impl<'de, T: Taker> DeserializeSeed<'de> for Document<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, T: Taker> Visitor<'de> for Document<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `nuc`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key != "nuc" {
                self.taker.other(key, &mut map)?;
                continue;
            }
            if std::mem::replace(self.found, true) {
                return Err(A::Error::custom("a second `nuc`"));
            }
            map.next_value_seed(Nuclei {
                taker: &mut *self.taker,
                nucleus: self.nucleus,
            })?;
            self.nucleus.replace(None);
        }
        Ok(())
    }
}

/// The object `nuc`.
struct Nuclei<'a, T> {
    taker: &'a mut T,
    nucleus: &'a RefCell<Option<String>>,
}

impl<'de, T: Taker> DeserializeSeed<'de> for Nuclei<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, T: Taker> Visitor<'de> for Nuclei<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of nuclei by id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(id) = map.next_key::<String>()? {
            self.nucleus.replace(Some(id.clone()));
            self.taker.nucleus(&id, &mut map)?;
        }
        Ok(())
    }
}
