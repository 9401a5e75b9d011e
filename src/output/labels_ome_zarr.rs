//! labels.ome.zarr/: two OME-Zarr 0.5 label pyramids at the model's µm/px, `nuclei` (each pixel's id) and `types`.
//!
//! In: a [`SlideResult`]. Out: a folder that appears whole or not at all, laid out as the `labels` group of an image.
//! Every level is drawn from the masks, a chunk at a time: memory does not grow with the slide. A coarser pixel has the
//! value of the pixel at its centre. Chunks without a nucleus are not stored.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Value, json};
use zarrs::array::codec::ZstdCodec;
use zarrs::array::{Array, ArrayBuilder, ArrayMetadataOptions};
use zarrs::filesystem::FilesystemStore;

use super::{OutputError, pictures};
use crate::geometry::Rect;
use crate::nuclei::Nucleus;
use crate::result::SlideResult;

const FOLDER: &str = "labels.ome.zarr";
/// Side of a chunk, px.
const CHUNK_PX: i32 = 1024;
/// Levels are added until the longer side fits into a chunk.
const MOST_LEVELS: u32 = 12;
const ZSTD_LEVEL: i32 = 1;
/// The value of `types` for a nucleus of a model without types.
const UNTYPED: u8 = 1;

/// Writes `folder/labels.ome.zarr` in place of an older one and returns its path.
pub fn write(result: &SlideResult, folder: &Path) -> Result<PathBuf, OutputError> {
    let path = folder.join(FOLDER);
    let failed = |source: io::Error| OutputError::Write {
        path: path.clone(),
        source,
    };
    super::make_folder(folder)?;
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{FOLDER}."))
        .suffix(".partial")
        .tempdir_in(folder)
        .map_err(failed)?;
    write_hierarchy(result, partial.path()).map_err(|reason| OutputError::Content {
        path: path.clone(),
        reason,
    })?;
    replace(partial, &path).map_err(failed)?;
    Ok(path)
}

/// Puts a finished folder on disk and in its place.
fn replace(partial: tempfile::TempDir, path: &Path) -> io::Result<()> {
    sync_all(partial.path())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary folder is its owner's alone; a result is not.
        std::fs::set_permissions(partial.path(), std::fs::Permissions::from_mode(0o755))?;
    }
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    let from = partial.keep();
    std::fs::rename(&from, path).inspect_err(|_| {
        let _ = std::fs::remove_dir_all(&from);
    })
}

fn sync_all(folder: &Path) -> io::Result<()> {
    let entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.par_iter().try_for_each(|entry| {
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())
        } else {
            File::open(entry.path())?.sync_all()
        }
    })?;
    File::open(folder)?.sync_all()
}

/// One level of both pyramids.
struct Level {
    /// Level-0 px per px, as a power of two.
    power: u32,
    size_px: [i32; 2],
    ids: Array<FilesystemStore>,
    types: Array<FilesystemStore>,
}

fn write_hierarchy(result: &SlideResult, path: &Path) -> Result<(), String> {
    let storage = Arc::new(FilesystemStore::new(path).map_err(|e| e.to_string())?);
    let levels = level_sizes(result.frames().proc_size_px);
    let provenance = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "slide": result.meta.slide.quickhash,
        "model": result.meta.model.name,
        "sha256": result.meta.model.sha256,
    });
    let root = json!({
        "ome": {"version": "0.5", "labels": ["nuclei", "types"]},
        "wsi_nuclei": provenance,
    });
    write_group(path, root)?;
    let ids = image_attributes("nuclei", result, levels.len(), json!({}));
    write_group(&path.join("nuclei"), ids)?;
    let types = image_attributes("types", result, levels.len(), type_label(result));
    write_group(&path.join("types"), types)?;

    let types_of: Vec<u8> = result
        .nuclei
        .iter()
        .map(|nucleus| nucleus.type_id().map_or(UNTYPED, |id| id as u8))
        .collect();
    for (power, size_px) in (0..).zip(levels) {
        let level = Level {
            power,
            size_px,
            ids: array(
                path,
                &storage,
                &format!("nuclei/{power}"),
                size_px,
                "uint32",
            )?,
            types: array(path, &storage, &format!("types/{power}"), size_px, "uint8")?,
        };
        write_level(&result.nuclei, &types_of, &level)?;
    }
    Ok(())
}

/// Sizes from full to the first that fits into a chunk.
fn level_sizes(proc_size_px: [i32; 2]) -> Vec<[i32; 2]> {
    let mut sizes = vec![proc_size_px];
    for power in 1..MOST_LEVELS {
        let [w, h] = sizes[sizes.len() - 1];
        if w.max(h) <= CHUNK_PX {
            break;
        }
        // Only whole pixels: each has a centre on the slide.
        sizes.push(proc_size_px.map(|px| (px >> power).max(1)));
    }
    sizes
}

/// Sets a level's pixels, row of chunks by row of chunks.
fn write_level(nuclei: &[Nucleus], types_of: &[u8], level: &Level) -> Result<(), String> {
    let [width, height] = level.size_px;
    let columns = (width + CHUNK_PX - 1) / CHUNK_PX;
    // Sorted by their first row, so those that reach into a row of chunks stand together.
    let tallest = nuclei.iter().map(|n| n.bbox.h).max().unwrap_or(0);
    for row in 0..(height + CHUNK_PX - 1) / CHUNK_PX {
        let top = (row * CHUNK_PX) << level.power;
        let bottom = top.saturating_add(CHUNK_PX << level.power);
        let first = nuclei.partition_point(|n| n.bbox.y + tallest <= top);
        let end = nuclei.partition_point(|n| n.bbox.y < bottom);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); columns as usize];
        for (at, nucleus) in (first..end).zip(&nuclei[first..end]) {
            let column = |x: i32| ((x >> level.power) / CHUNK_PX).clamp(0, columns - 1);
            for chunk in column(nucleus.bbox.x)..=column(nucleus.bbox.right() - 1) {
                members[chunk as usize].push(at);
            }
        }
        members
            .par_iter()
            .enumerate()
            .filter(|(_, members)| !members.is_empty())
            .try_for_each(|(column, members)| {
                let origin = [column as i32 * CHUNK_PX, row * CHUNK_PX];
                let ids = draw(nuclei, members, origin, level.power);
                let kind = |id: &u32| (*id as usize).checked_sub(1).map_or(0, |at| types_of[at]);
                let types: Vec<u8> = ids.iter().map(kind).collect();
                let indices = [row as u64, column as u64];
                let stored = level.ids.store_chunk(&indices, ids);
                stored
                    .and_then(|()| level.types.store_chunk(&indices, types))
                    .map_err(|e| e.to_string())
            })?;
    }
    Ok(())
}

/// A chunk of ids whose upper left px is at `origin`, level px.
fn draw(nuclei: &[Nucleus], members: &[usize], origin: [i32; 2], power: u32) -> Vec<u32> {
    let mut ids = vec![0u32; (CHUNK_PX * CHUNK_PX) as usize];
    let chunk = Rect::new(origin[0], origin[1], CHUNK_PX, CHUNK_PX);
    // The proc px that stands for level px x: the one right of its centre.
    let centre = (1 << power) >> 1;
    let at_least = |px: i32| (px - centre + (1 << power) - 1) >> power;
    for &at in members {
        let nucleus = &nuclei[at];
        let b = nucleus.bbox;
        let (x0, y0) = (at_least(b.x), at_least(b.y));
        let (x1, y1) = (at_least(b.right()), at_least(b.bottom()));
        let seen = Rect::new(x0, y0, x1 - x0, y1 - y0).intersect(&chunk);
        if seen.is_empty() {
            continue;
        }
        for y in seen.y..seen.bottom() {
            let first = (y - origin[1]) * CHUNK_PX + seen.x - origin[0];
            let row = ids[first as usize..].iter_mut();
            let bits = ((y << power) + centre - b.y) as usize * b.w as usize;
            for (x, id) in (seen.x..seen.right()).zip(row) {
                let bit = bits + ((x << power) + centre - b.x) as usize;
                let byte = nucleus.mask.get(bit / 8).copied().unwrap_or(0);
                if byte >> (bit % 8) & 1 == 1 {
                    *id = at as u32 + 1;
                }
            }
        }
    }
    ids
}

/// An array without values, its metadata without a word of this library's version.
fn array(
    path: &Path,
    storage: &Arc<FilesystemStore>,
    name: &str,
    [width, height]: [i32; 2],
    data_type: &str,
) -> Result<Array<FilesystemStore>, String> {
    let shape = vec![height as u64, width as u64];
    let mut builder = ArrayBuilder::new(shape, vec![CHUNK_PX as u64; 2], data_type, 0u8);
    builder
        .bytes_to_bytes_codecs(vec![Arc::new(ZstdCodec::new(ZSTD_LEVEL, false))])
        .dimension_names(["y", "x"].into());
    let array = builder
        .build(storage.clone(), &format!("/{name}"))
        .map_err(|e| e.to_string())?;
    let options = ArrayMetadataOptions::default().with_include_zarrs_metadata(false);
    let metadata = serde_json::to_value(array.metadata_opt(&options)).map_err(|e| e.to_string())?;
    write_json(&path.join(name), &metadata)?;
    Ok(array)
}

fn write_group(folder: &Path, attributes: Value) -> Result<(), String> {
    let group = json!({"zarr_format": 3, "node_type": "group", "attributes": attributes});
    write_json(folder, &group)
}

/// `folder/zarr.json`.
fn write_json(folder: &Path, value: &Value) -> Result<(), String> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(folder.join("zarr.json"), text))
        .map_err(|e| e.to_string())
}

/// A pyramid's metadata: µm per px of each level, and where its first pixel's centre lies.
fn image_attributes(name: &str, result: &SlideResult, levels: usize, label: Value) -> Value {
    let [mpp_x, mpp_y] = result.frames().proc_mpp();
    let datasets: Vec<Value> = (0..levels)
        .map(|level| {
            let factor = (1u64 << level) as f64;
            // The first px of a level is the proc px at 2^level / 2.
            let shift = (factor / 2.0).floor();
            json!({
                "path": level.to_string(),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [mpp_y * factor, mpp_x * factor]},
                    {"type": "translation", "translation": [mpp_y * shift, mpp_x * shift]},
                ],
            })
        })
        .collect();
    let axis = |name: &str| json!({"name": name, "type": "space", "unit": "micrometer"});
    json!({
        "ome": {
            "version": "0.5",
            "multiscales": [{
                "name": name,
                "axes": [axis("y"), axis("x")],
                "datasets": datasets,
                "type": "nearest",
            }],
            "image-label": label,
        }
    })
}

/// Colours and names by type.
fn type_label(result: &SlideResult) -> Value {
    let kinds = &result.meta.model.types;
    let named: Vec<(u8, String, [u8; 3])> = if kinds.is_empty() {
        let colour = pictures::colour_of(result, None).0;
        vec![(UNTYPED, "nucleus".into(), colour)]
    } else {
        let kinds = (0u8..).zip(kinds).skip(1);
        kinds
            .map(|(id, kind)| {
                let colour = pictures::type_colour(result, usize::from(id)).0;
                (id, kind.name.clone(), colour)
            })
            .collect()
    };
    // Readers want the same values in both lists, so 0, where nothing is, stands in neither.
    let colours: Vec<Value> = named
        .iter()
        .map(|(id, _, [r, g, b])| json!({"label-value": id, "rgba": [r, g, b, 255]}))
        .collect();
    let properties: Vec<Value> = named
        .iter()
        .map(|(id, name, _)| json!({"label-value": id, "name": name}))
        .collect();
    json!({"colors": colours, "properties": properties})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::fixture;

    fn read<T: zarrs::array::ElementOwned>(path: &Path, name: &str) -> (Vec<u64>, Vec<T>) {
        let storage = Arc::new(FilesystemStore::new(path).unwrap());
        let array = Array::open(storage, &format!("/{name}")).unwrap();
        let shape = array.shape().to_vec();
        let values = array.retrieve_array_subset(&array.subset_all()).unwrap();
        (shape, values)
    }

    #[test]
    fn every_level_shows_the_masks_at_its_pixels_centres() {
        let mut result = fixture::result(1.0);
        // Four chunks at full size, one at half: and nuclei that reach over the borders.
        result.meta.frames.proc_size_px = [1500, 1300];
        for (i, nucleus) in result.nuclei.iter_mut().enumerate() {
            nucleus.bbox.x += 1000 * (i as i32 % 2) + 2;
            nucleus.bbox.y += 1005;
        }
        result.nuclei.sort_by_key(Nucleus::first_pixel);
        let folder = tempfile::tempdir().unwrap();
        let path = write(&result, folder.path()).unwrap();
        // Again, over the first.
        assert_eq!(write(&result, folder.path()).unwrap(), path);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        for (level, [w, h]) in [(0, [1500i32, 1300]), (1, [750, 650])] {
            let (shape, ids) = read::<u32>(&path, &format!("nuclei/{level}"));
            let (_, types) = read::<u8>(&path, &format!("types/{level}"));
            assert_eq!(shape, [h as u64, w as u64]);
            let half = (1 << level) / 2;
            for (i, (&id, &kind)) in ids.iter().zip(&types).enumerate() {
                let [x, y] = [i as i32 % w, i as i32 / w].map(|v| (v << level) + half);
                let expected = result.nuclei.iter().position(|n| n.contains(x, y));
                assert_eq!(
                    id as usize,
                    expected.map_or(0, |at| at + 1),
                    "{level} {x} {y}"
                );
                let kind_of = |at: usize| result.nuclei[at].type_id().unwrap();
                assert_eq!(usize::from(kind), expected.map_or(0, kind_of));
            }
        }
    }

    #[test]
    fn metadata_says_scale_and_colours() {
        let result = fixture::result(1.996);
        let folder = tempfile::tempdir().unwrap();
        let path = write(&result, folder.path()).unwrap();
        let attributes = |name: &str| -> Value {
            let text = std::fs::read(path.join(name).join("zarr.json")).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap()["attributes"]["ome"].clone()
        };
        assert_eq!(attributes("")["labels"], json!(["nuclei", "types"]));
        let types = attributes("types");
        let scale = &types["multiscales"][0]["datasets"][0]["coordinateTransformations"][0];
        assert!((scale["scale"][0].as_f64().unwrap() - 0.25).abs() < 1e-12);
        assert_eq!(
            types["image-label"]["colors"][1],
            json!({"label-value": 2, "rgba": [0, 0, 255, 255]})
        );
        assert_eq!(types["image-label"]["properties"][0]["name"], "tumour");
        assert!(attributes("nuclei")["image-label"].is_object());
    }

    #[test]
    fn sizes_of_levels() {
        assert_eq!(level_sizes([1, 1]), [[1, 1]]);
        assert_eq!(level_sizes([3000, 5]), [[3000, 5], [1500, 2], [750, 1]]);
    }
}
