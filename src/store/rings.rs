//! The array `rings`: the tissue around a finished slide's nuclei, so that outputs need no slide.
//!
//! In: nuclei with one [`Ring`] each. Out: the same rings, for the same nuclei. A cache, not a
//! checkpoint: where it is absent, damaged or of other nuclei, the caller measures the slide again.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use zarrs::array::{Array, ArrayBuilder};

use super::zarr::{RINGS, build, write_metadata};
use super::{Store, StoreError};
use crate::digest::hex;
use crate::features::Ring;
use crate::nuclei::Nucleus;

/// Nuclei per chunk.
const CHUNK: usize = 8192;
/// Numbers per ring.
const FIELDS: usize = 5;
/// The array's attribute with the hash of its nuclei.
const NUCLEI_HASH: &str = "nuclei_sha256";

impl Store {
    /// The rings of `nuclei`, if the store has them for exactly these.
    pub fn read_rings(&self, nuclei: &[Nucleus]) -> Option<Vec<Ring>> {
        if nuclei.is_empty() {
            return Some(Vec::new());
        }
        if !self.path().join(RINGS).is_dir() {
            return None;
        }
        let array = Array::open(self.storage.clone(), &format!("/{RINGS}")).ok()?;
        let hash = array.attributes().get(NUCLEI_HASH).and_then(Value::as_str);
        let chunk_shape = array.chunk_shape_usize(&[0, 0]).ok()?;
        if hash != Some(&hash_hex(nuclei))
            || array.shape() != [nuclei.len() as u64, FIELDS as u64]
            || chunk_shape != [CHUNK, FIELDS]
        {
            return None;
        }
        let mut rings = Vec::with_capacity(nuclei.len());
        for chunk in 0..nuclei.len().div_ceil(CHUNK) as u64 {
            let values = array.retrieve_chunk_if_exists::<Vec<i64>>(&[chunk, 0]);
            let values = values.ok().flatten()?;
            rings.extend(values.chunks_exact(FIELDS).map(ring));
        }
        // The last chunk is padded.
        rings.truncate(nuclei.len());
        (rings.len() == nuclei.len()).then_some(rings)
    }

    /// Keeps the rings of `nuclei`, one each.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn write_rings(&self, nuclei: &[Nucleus], rings: &[Ring]) -> Result<(), StoreError> {
        let written = || -> Result<(), String> {
            if rings.is_empty() {
                return Ok(());
            }
            let shape = vec![rings.len() as u64, FIELDS as u64];
            let chunk = vec![CHUNK as u64, FIELDS as u64];
            let mut builder = ArrayBuilder::new(shape, chunk, "int64", 0i64);
            let mut attributes = Map::new();
            attributes.insert(NUCLEI_HASH.into(), json!(hash_hex(nuclei)));
            builder.attributes(attributes);
            let array = build(builder, self.storage.clone(), &format!("/{RINGS}"))?;
            let options = zarrs::array::CodecOptions::default().with_store_empty_chunks(true);
            for (place, part) in rings.chunks(CHUNK).enumerate() {
                let mut values: Vec<i64> = part.iter().flat_map(numbers).collect();
                values.resize(CHUNK * FIELDS, 0);
                array
                    .store_chunk_opt(&[place as u64, 0], values, &options)
                    .map_err(|e| e.to_string())?;
            }
            // Written last, so that an array that has metadata is complete.
            write_metadata(&array)
        };
        written().map_err(|reason| StoreError::write(&self.path().join(RINGS), reason))
    }
}

fn numbers(ring: &Ring) -> [i64; FIELDS] {
    [
        i64::from(ring.area_px),
        ring.hematoxylin,
        ring.hematoxylin_sq as i64,
        ring.eosin,
        ring.eosin_sq as i64,
    ]
}

fn ring(numbers: &[i64]) -> Ring {
    Ring {
        area_px: numbers[0] as u32,
        hematoxylin: numbers[1],
        hematoxylin_sq: numbers[2] as u64,
        eosin: numbers[3],
        eosin_sq: numbers[4] as u64,
    }
}

/// SHA-256 of the places and masks of `nuclei`.
fn hash_hex(nuclei: &[Nucleus]) -> String {
    let mut hash = Sha256::new();
    for nucleus in nuclei {
        let bbox = nucleus.bbox;
        for side in [bbox.x, bbox.y, bbox.w, bbox.h] {
            hash.update(side.to_le_bytes());
        }
        hash.update(&nucleus.mask);
    }
    hex(&hash.finalize())
}
