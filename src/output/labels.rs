//! labels.png (16 bit) or labels.npy (32 bit, where ids exceed 65535): the id of each pixel's nucleus, 0 elsewhere.
//!
//! In: the [`SlideResult`] of a plain image. Out: a label map in that image's own px, whatever the model's µm/px was:
//! a pixel belongs to the nucleus that covers its centre.

use std::path::{Path, PathBuf};

use image::{ImageBuffer, Luma};
use npyz::WriterBuilder;

use super::{OutputError, pictures, write_file};
use crate::result::SlideResult;

/// Largest id that 16 bits hold.
const MOST_IN_16_BITS: usize = u16::MAX as usize;

/// Writes `labels.png` or `labels.npy` into `folder` and returns its path; removes the other, a leftover.
pub fn write(result: &SlideResult, folder: &Path) -> Result<PathBuf, OutputError> {
    let [png, npy] = ["labels.png", "labels.npy"].map(|name| folder.join(name));
    let map = label_map(result, &png)?;
    let [width, height] = result.frames().level0_size_px;
    let (path, leftover) = if result.nuclei.len() <= MOST_IN_16_BITS {
        let pixels: Vec<u16> = map.iter().map(|id| *id as u16).collect();
        let image = ImageBuffer::<Luma<u16>, _>::from_raw(width as u32, height as u32, pixels)
            .ok_or_else(|| OutputError::Content {
                path: png.clone(),
                reason: "the label map has the wrong size".into(),
            })?;
        pictures::write_png(&image.into(), &png)?;
        (png, npy)
    } else {
        write_file(&npy, |out| {
            let mut writer = npyz::WriteOptions::new()
                .default_dtype()
                .shape(&[height, width])
                .writer(out)
                .begin_nd()?;
            writer.extend(map.iter().copied())?;
            writer.finish()
        })?;
        (npy, png)
    };
    let _ = std::fs::remove_file(leftover);
    Ok(path)
}

/// `height * width` ids, row by row, level-0 px; `path` is for messages.
pub fn label_map(result: &SlideResult, path: &Path) -> Result<Vec<u32>, OutputError> {
    let frames = result.frames();
    let [width, height] = frames.level0_size_px.map(|n| n as usize);
    let pixels = width
        .checked_mul(height)
        .filter(|n| *n <= 1 << 29)
        .ok_or_else(|| OutputError::Content {
            path: path.to_owned(),
            reason: format!("{width} x {height} px are too many for one label map: use `run`"),
        })?;
    let mut map = vec![0u32; pixels];
    for (id, nucleus) in (1u32..).zip(&result.nuclei) {
        let b = nucleus.bbox;
        let [x0, y0] = frames.to_level0(f64::from(b.x), f64::from(b.y));
        let [x1, y1] = frames.to_level0(f64::from(b.right()), f64::from(b.bottom()));
        let columns = x0.floor().max(0.0) as usize..(x1.ceil().max(0.0) as usize).min(width);
        for y in y0.floor().max(0.0) as usize..(y1.ceil().max(0.0) as usize).min(height) {
            for x in columns.clone() {
                let [px, py] = frames.to_proc(x as f64 + 0.5, y as f64 + 0.5);
                let inside = nucleus.contains(px.floor() as i32, py.floor() as i32);
                if inside && let Some(label) = map.get_mut(y * width + x) {
                    *label = id;
                }
            }
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::fixture;

    #[test]
    fn labels_follow_the_mask_at_ratio_1() {
        let result = fixture::result(1.0);
        let folder = tempfile::tempdir().unwrap();
        let path = write(&result, folder.path()).unwrap();
        let image = image::open(&path).unwrap().into_luma16();
        assert_eq!(image.dimensions(), (60, 40));
        for (id, nucleus) in (1u16..).zip(&result.nuclei) {
            let count = image.pixels().filter(|p| p.0[0] == id).count();
            assert_eq!(count as u32, nucleus.area_px, "{id}");
        }
    }

    #[test]
    fn labels_are_in_the_images_own_px_at_any_ratio() {
        let result = fixture::result(1.996);
        let folder = tempfile::tempdir().unwrap();
        let image = image::open(write(&result, folder.path()).unwrap()).unwrap();
        assert_eq!((image.width(), image.height()), (30, 20));
        let image = image.into_luma16();
        // Nucleus 2 is a 12 x 8 proc px box: about 6 x 4 px of the image.
        let count = image.pixels().filter(|p| p.0[0] == 2).count();
        assert!((20..=28).contains(&count), "{count}");
    }
}
