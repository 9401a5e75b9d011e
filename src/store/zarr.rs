//! The Zarr v3 hierarchy: group attributes, `tiles`, `thumb`, `mask`.
//!
//! In: a folder. Out: a [`Store`] that writes and reads tiles by index. `zarr.json` of the group is
//! written last, so a folder that has it is a complete store. Threads may write tiles at once.

use std::collections::BTreeSet;
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use serde_json::{Map, Value, json};
use zarrs::array::codec::{Crc32cCodec, ZstdCodec};
use zarrs::array::{
    Array, ArrayBuilder, ArrayBytes, ArrayBytesOffsets, ArrayError, ArrayMetadataOptions,
};
use zarrs::group::{Group, GroupBuilder};
use zarrs::storage::{StoreKey, WritableStorageTraits};

use super::chunk::{self, ChunkKey};
use super::fs::AtomicStore;
use super::{IdentityMismatch, Lock, StoreError, StoreMeta, TileResult, atomic, identity};
use crate::tissue::TissueMask;

/// The group's attribute that holds the [`StoreMeta`].
const ATTRIBUTE: &str = "wsi_nuclei";
/// Raised whenever the hierarchy changes.
const FORMAT: u64 = 1;
const ARRAYS: [&str; 3] = ["tiles", "thumb", "mask"];
/// An array that a finished slide may have beside them (see [`super::rings`]).
pub(super) const RINGS: &str = "rings";
const ZSTD_LEVEL: i32 = 3;

/// A slide's checkpoint, open for reading and writing.
pub struct Store {
    path: PathBuf,
    meta: StoreMeta,
    key: ChunkKey,
    tiles: Array<AtomicStore>,
    pub(super) storage: Arc<AtomicStore>,
    /// Held while the store is open for writing.
    lock: Option<Lock>,
}

/// What the store holds for a tile.
#[derive(Debug, Clone, PartialEq)]
pub enum TileState {
    /// A valid result.
    Done {
        /// The tile's result.
        tile: Box<TileResult>,
        /// Hardware and libraries that made it.
        numerics: String,
    },
    /// No chunk: the tile was not run yet.
    Absent,
    /// There is a chunk, but it cannot be trusted, for this reason: the tile must run again.
    Damaged(String),
}

impl Store {
    /// Makes a store without tiles, and clears what an interrupted `create` or [`remove`] left.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where there is a complete store, which is not touched;
    /// [`StoreError::Write`].
    pub fn create(
        path: &Path,
        meta: &StoreMeta,
        thumb: &RgbImage,
        mask: &TissueMask,
    ) -> Result<Store, StoreError> {
        if path.join("zarr.json").exists() {
            return Err(StoreError::Exists { path: path.into() });
        }
        remove_arrays(path).map_err(|e| StoreError::write(path, e))?;
        atomic::create_dir_all(path).map_err(|e| StoreError::write(path, e))?;
        let storage = storage(path)?;
        write_arrays(meta, thumb, mask, &storage).map_err(|e| StoreError::write(path, e))?;
        write_group(meta, storage).map_err(|e| StoreError::write(path, e))?;
        Store::open(path)
    }

    /// Opens a complete store.
    ///
    /// # Errors
    /// [`StoreError::NotAStore`], [`StoreError::Read`], or [`StoreError::Damaged`].
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let file = path.join("zarr.json");
        let damaged = |reason: String| StoreError::damaged(file.clone(), reason);
        let not_ours = || StoreError::NotAStore { path: path.into() };
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), NotFound | NotADirectory) => return Err(not_ours()),
            Err(e) => return Err(StoreError::read(&file, e)),
        };
        let json: Value = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        let attribute = json
            .pointer(&format!("/attributes/{ATTRIBUTE}"))
            .ok_or_else(not_ours)?;
        let storage = storage(path)?;
        Group::open(storage.clone(), "/").map_err(|e| damaged(e.to_string()))?;
        let meta = read_meta(attribute).map_err(damaged)?;
        let tiles_file = path.join("tiles/zarr.json");
        let tiles = Array::open(storage.clone(), "/tiles")
            .map_err(|e| StoreError::damaged(tiles_file.clone(), e))?;
        if tiles.shape() != grid_shape(&meta) {
            return Err(StoreError::damaged(
                tiles_file,
                "its shape is not the tile grid",
            ));
        }
        let key = ChunkKey {
            identity: identity::hash(&meta.identity),
            tile_patches: meta.layout.tile_patches,
        };
        Ok(Store {
            path: path.into(),
            meta,
            key,
            tiles,
            storage,
            lock: None,
        })
    }

    /// Keeps `lock` until the store is dropped.
    pub fn hold(&mut self, lock: Lock) {
        self.lock = Some(lock);
    }

    /// The store's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the store says about itself.
    pub fn meta(&self) -> &StoreMeta {
        &self.meta
    }

    /// Checks that a run with `wanted`'s identity may use this store's tiles.
    ///
    /// # Errors
    /// Every setting that differs.
    pub fn check_identity(&self, wanted: &StoreMeta) -> Result<(), IdentityMismatch> {
        let differences = identity::differences(&self.meta.identity, &wanted.identity);
        if differences.is_empty() {
            return Ok(());
        }
        Err(IdentityMismatch {
            path: self.path.clone(),
            differences,
        })
    }

    /// Commits one tile: after this it survives a kill. `numerics` names the hardware and libraries
    /// that made it.
    ///
    /// # Errors
    /// [`StoreError::Write`], or [`StoreError::Tile`] for a tile that breaks its contract.
    pub fn write_tile(&self, tile: &TileResult, numerics: &str) -> Result<(), StoreError> {
        let (col, row) = (tile.col, tile.row);
        let bytes =
            chunk::encode(tile, &self.key, numerics).map_err(|reason| StoreError::Tile {
                path: self.path.clone(),
                col,
                row,
                reason,
            })?;
        let failed = |reason: String| StoreError::write(&self.path, reason);
        let indices = chunk_indices(col, row)
            .ok_or_else(|| failed(format!("tile ({col}, {row}) has no place")))?;
        let offsets =
            ArrayBytesOffsets::new(vec![0, bytes.len()]).map_err(|e| failed(e.to_string()))?;
        let value = ArrayBytes::new_vlen(bytes, offsets).map_err(|e| failed(e.to_string()))?;
        self.tiles
            .store_chunk(&indices, value)
            .map_err(|e| failed(e.to_string()))
    }

    /// What the store holds for a tile.
    ///
    /// # Errors
    /// [`StoreError::Read`] where the file cannot be read at all (permissions, disk).
    pub fn tile_state(&self, col: i32, row: i32) -> Result<TileState, StoreError> {
        let Some(indices) = chunk_indices(col, row) else {
            return Ok(TileState::Absent);
        };
        let file = self.path.join(format!("tiles/c/{row}/{col}"));
        let damaged = |reason: String| TileState::Damaged(format!("{}: {reason}", file.display()));
        let value = match self.tiles.retrieve_chunk_if_exists::<ArrayBytes>(&indices) {
            Ok(Some(value)) => value,
            Ok(None) => return Ok(TileState::Absent),
            Err(ArrayError::StorageError(e)) => return Err(StoreError::read(&file, e)),
            Err(e) => return Ok(damaged(e.to_string())),
        };
        let bytes = match value.into_variable() {
            Ok(value) => value.into_parts().0,
            Err(e) => return Ok(damaged(e.to_string())),
        };
        Ok(match chunk::decode(&bytes, &self.key, [col, row]) {
            Ok((tile, numerics)) => TileState::Done {
                tile: Box::new(tile),
                numerics,
            },
            Err(e) => damaged(e.to_string()),
        })
    }

    /// The slide at low magnification.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn thumb(&self) -> Result<RgbImage, StoreError> {
        let (array, pixels) = self.read_image("thumb")?;
        let picture = match (side(&array, 0), side(&array, 1)) {
            (Some(height), Some(width)) => RgbImage::from_raw(width, height, pixels),
            _ => None,
        };
        picture.ok_or_else(|| self.damaged_array("thumb"))
    }

    /// The tissue mask from which the plan was made.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn mask(&self) -> Result<TissueMask, StoreError> {
        let (array, pixels) = self.read_image("mask")?;
        let cell = array
            .attributes()
            .get("cell_level0_px")
            .cloned()
            .unwrap_or_default();
        let (Ok(cell_level0_px), Some(height), Some(width)) = (
            serde_json::from_value(cell),
            side(&array, 0),
            side(&array, 1),
        ) else {
            return Err(self.damaged_array("mask"));
        };
        if u64::from(width) * u64::from(height) != pixels.len() as u64 {
            return Err(self.damaged_array("mask"));
        }
        Ok(TissueMask {
            width,
            height,
            cell_level0_px,
            tissue: pixels.iter().map(|&p| p != 0).collect(),
        })
    }

    fn damaged_array(&self, name: &str) -> StoreError {
        StoreError::damaged(
            self.path.join(name).join("zarr.json"),
            "its shape or attributes are not those of this program",
        )
    }

    /// A `u8` array of one chunk with its values.
    fn read_image(&self, name: &str) -> Result<(Array<AtomicStore>, Vec<u8>), StoreError> {
        let damaged = |reason: String| StoreError::damaged(self.path.join(name), reason);
        let array = Array::open(self.storage.clone(), &format!("/{name}"))
            .map_err(|e| damaged(e.to_string()))?;
        let first = vec![0; array.dimensionality()];
        // A chunk that is not there would read as zeros.
        let values = array
            .retrieve_chunk_if_exists::<Vec<u8>>(&first)
            .map_err(|e| damaged(e.to_string()))?
            .ok_or_else(|| damaged("its pixels are missing".into()))?;
        Ok((array, values))
    }
}

/// Size of an array along axis `at`.
fn side(array: &Array<AtomicStore>, at: usize) -> Option<u32> {
    u32::try_from(*array.shape().get(at)?).ok()
}

/// Drops a store (`--restart`): first the file that makes it one, then its arrays. Other files in
/// the folder stay. A folder that does not exist is fine.
///
/// # Errors
/// [`StoreError::NotAStore`] for another folder with a `zarr.json`, which is not touched;
/// [`StoreError::Write`].
pub fn remove(path: &Path) -> Result<(), StoreError> {
    let file = path.join("zarr.json");
    if !path.exists() {
        return Ok(());
    }
    // A store whose metadata is damaged is still known by its arrays.
    let is_ours = ARRAYS.iter().all(|array| path.join(array).is_dir())
        || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(ATTRIBUTE));
    if !is_ours && file.exists() {
        return Err(StoreError::NotAStore { path: path.into() });
    }
    let drop_all = || {
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() == NotFound => {}
            other => other?,
        }
        atomic::sync_dir(path)?;
        remove_arrays(path)
    };
    drop_all().map_err(|e| StoreError::write(path, e))
}

fn remove_arrays(path: &Path) -> std::io::Result<()> {
    for array in ARRAYS.into_iter().chain([RINGS]) {
        match std::fs::remove_dir_all(path.join(array)) {
            Err(e) if e.kind() == NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Rows and columns of the tile grid; a slide without tiles still has an array.
fn grid_shape(meta: &StoreMeta) -> Vec<u64> {
    let [columns, rows] = meta.layout.tiles_xy.map(|n| n.max(1) as u64);
    vec![rows, columns]
}

fn chunk_indices(col: i32, row: i32) -> Option<[u64; 2]> {
    Some([u64::try_from(row).ok()?, u64::try_from(col).ok()?])
}

fn storage(path: &Path) -> Result<Arc<AtomicStore>, StoreError> {
    AtomicStore::new(path)
        .map(Arc::new)
        .map_err(|e| StoreError::read(path, e))
}

fn write_arrays(
    meta: &StoreMeta,
    thumb: &RgbImage,
    mask: &TissueMask,
    storage: &Arc<AtomicStore>,
) -> Result<(), String> {
    let no_bytes = Vec::<u8>::new();
    let tiles = ArrayBuilder::new(grid_shape(meta), vec![1, 1], "bytes", no_bytes);
    write_metadata(&build(tiles, storage.clone(), "/tiles")?)?;

    let (width, height) = thumb.dimensions();
    let shape = vec![height.into(), width.into(), 3];
    let pixels = thumb.as_raw().clone();
    write_image(shape, Map::new(), pixels, storage.clone(), "/thumb")?;

    let mut attributes = Map::new();
    attributes.insert("cell_level0_px".into(), json!(mask.cell_level0_px));
    let shape = vec![mask.height.into(), mask.width.into()];
    let cells = mask.tissue.iter().map(|&t| u8::from(t)).collect();
    write_image(shape, attributes, cells, storage.clone(), "/mask")
}

/// An array with the store's codecs. Nothing of it is written yet.
pub(super) fn build(
    mut builder: ArrayBuilder,
    storage: Arc<AtomicStore>,
    path: &str,
) -> Result<Array<AtomicStore>, String> {
    builder.bytes_to_bytes_codecs(vec![
        Arc::new(ZstdCodec::new(ZSTD_LEVEL, false)),
        Arc::new(Crc32cCodec::new()),
    ]);
    builder.build(storage, path).map_err(|e| e.to_string())
}

/// Writes an array's `zarr.json`, without the version of zarrs.
pub(super) fn write_metadata(array: &Array<AtomicStore>) -> Result<(), String> {
    let options = ArrayMetadataOptions::default().with_include_zarrs_metadata(false);
    let mut metadata =
        serde_json::to_value(array.metadata_opt(&options)).map_err(|e| e.to_string())?;
    if let Some(value) = metadata.get_mut("fill_value")
        && value.as_array().is_some_and(Vec::is_empty)
    {
        // The base64 of no bytes: zarr-python takes no list here, zarrs takes both.
        *value = json!("");
    }
    let text = serde_json::to_vec_pretty(&metadata).map_err(|e| e.to_string())?;
    let path = array.path().as_str().trim_start_matches('/');
    let key = StoreKey::new(format!("{path}/zarr.json")).map_err(|e| e.to_string())?;
    let storage = array.storage();
    storage.set(&key, text.into()).map_err(|e| e.to_string())
}

/// A `u8` array of one chunk.
fn write_image(
    shape: Vec<u64>,
    attributes: Map<String, Value>,
    values: Vec<u8>,
    storage: Arc<AtomicStore>,
    path: &str,
) -> Result<(), String> {
    let mut builder = ArrayBuilder::new(shape.clone(), shape, "uint8", 0u8);
    builder.attributes(attributes);
    let array = build(builder, storage, path)?;
    write_metadata(&array)?;
    let options = zarrs::array::CodecOptions::default().with_store_empty_chunks(true);
    array
        .store_chunk_opt(&vec![0; array.dimensionality()], values, &options)
        .map_err(|e| e.to_string())
}

/// The group's `zarr.json`: the last file of a new store.
fn write_group(meta: &StoreMeta, storage: Arc<AtomicStore>) -> Result<(), String> {
    let meta = serde_json::to_value(meta).map_err(|e| e.to_string())?;
    let mut attributes = Map::new();
    attributes.insert(
        ATTRIBUTE.into(),
        json!({"format": FORMAT, "sha256": identity::hash_hex(&meta), "meta": meta}),
    );
    let mut group = GroupBuilder::new();
    group.attributes(attributes);
    let group = group.build(storage, "/").map_err(|e| e.to_string())?;
    group.store_metadata().map_err(|e| e.to_string())
}

fn read_meta(attribute: &Value) -> Result<StoreMeta, String> {
    let format = attribute.get("format").and_then(Value::as_u64);
    if format != Some(FORMAT) {
        return Err(format!("format {format:?}, this program knows {FORMAT}"));
    }
    let meta = attribute.get("meta").ok_or("has no settings")?;
    if attribute.get("sha256").and_then(Value::as_str) != Some(&identity::hash_hex(meta)) {
        return Err("its settings do not match their checksum".into());
    }
    let meta: StoreMeta = serde_json::from_value(meta.clone()).map_err(|e| e.to_string())?;
    let unique: BTreeSet<_> = meta.layout.planned_tiles.iter().collect();
    if unique.len() != meta.layout.planned_tiles.len() {
        return Err("it plans a tile twice".into());
    }
    Ok(meta)
}
