//! One plain image, or any slide small enough to hold: no tiles, no store.
//!
//! In: proc pixels and a model. Out: its nuclei, and the prediction map if asked for. Patches are the same as on slides
//! (same grid, same reflection at the rim), so the nuclei are too.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::PipelineError;
use super::{grid_of, patch};
use crate::geometry::Rect;
use crate::model::Model;
use crate::nuclei::{Foreground, Nucleus, reference};
use crate::plan::{PatchGrid, PatchIndex};
use crate::prediction::PredictionMap;
use crate::slide::blocks::ProcImage;

/// The dense map of a whole image must fit in memory: proc px it may have.
const MAX_DENSE_PX: u64 = 200_000_000;

/// What a model says about an image.
pub struct ImagePrediction {
    pub foreground: Foreground,
    /// The whole map, `[height, width]` proc px, if it was asked for.
    pub map: Option<PredictionMap>,
    pub done_px: u64,
}

/// How an image is predicted.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageOptions<'a> {
    /// Side of the network's input, px; `None`: the model's.
    pub patch_px: Option<u32>,
    /// Patches at once on a GPU; `None`: what suits the device.
    pub batch: Option<usize>,
    /// Whether the whole prediction map is kept.
    pub keep_map: bool,
    /// Raised by whoever wants the work to end.
    pub stop: Option<&'a AtomicBool>,
}

/// Predicts every patch of `image`.
///
/// # Errors
/// A pixel that cannot be read, a model that fails, or a dense map that would not fit.
pub fn predict(
    image: &ProcImage,
    model: &Model,
    options: ImageOptions<'_>,
) -> Result<ImagePrediction, PipelineError> {
    let spec = &model.spec;
    let size = image.frames().proc_rect();
    if options.keep_map && size.area() > MAX_DENSE_PX {
        return Err(PipelineError::TooLarge {
            w: size.w,
            h: size.h,
        });
    }
    let grid = grid_of(spec, image.frames(), options.patch_px)?;
    let threshold = spec.postproc.np_threshold;
    let patches: Vec<PatchIndex> = (0..grid.rows())
        .flat_map(|row| (0..grid.cols()).map(move |col| PatchIndex { col, row }))
        .collect();
    let mut map = options.keep_map.then(|| empty_map(size, spec.types.len()));
    let mut parts = Vec::with_capacity(patches.len());
    let batch = options.batch.unwrap_or_else(|| model.usual_batch());
    // A few patches at a time: dense maps of all patches would not fit.
    let at_once = (rayon::current_num_threads().max(1) * 2).max(batch);
    for some in patches.chunks(at_once) {
        if options
            .stop
            .is_some_and(|stop| stop.load(Ordering::Relaxed))
        {
            return Err(PipelineError::Stopped);
        }
        let pixels = some
            .par_iter()
            .map(|&index| patch::read_patch(image, &grid, index))
            .collect::<Result<Vec<_>, _>>()?;
        let maps = match &mut map {
            None => model.predict_all_quantised(&pixels, batch)?,
            Some(map) => {
                let dense = model.predict_all(&pixels, batch)?;
                for (&index, patch_map) in some.iter().zip(&dense) {
                    paste(map, patch_map, grid.out_rect(index));
                }
                dense.iter().map(PredictionMap::quantised).collect()
            }
        };
        let done = (some, &maps, &pixels)
            .into_par_iter()
            .map(|(&index, map, rgb)| patch::foreground_of_patch(map, rgb, &grid, index, threshold))
            .map(|(_, foreground)| foreground);
        parts.extend(done.collect::<Vec<_>>());
    }
    Ok(ImagePrediction {
        foreground: Foreground::merge(&parts),
        map,
        done_px: size.area(),
    })
}

fn empty_map(size: Rect, types: usize) -> PredictionMap {
    let n = size.area() as usize;
    PredictionMap {
        width: size.w as usize,
        height: size.h as usize,
        np: vec![0.0; n],
        h: vec![0.0; n],
        v: vec![0.0; n],
        types,
        tp: vec![0.0; n * types],
    }
}

/// Copies the part of a patch's map that lies in `clip` into the whole map.
fn paste(whole: &mut PredictionMap, patch: &PredictionMap, clip: Rect) {
    let (w, k) = (clip.w as usize, whole.types);
    for row in 0..clip.h as usize {
        let from = row * patch.width;
        let to = (clip.y as usize + row) * whole.width + clip.x as usize;
        whole.np[to..to + w].copy_from_slice(&patch.np[from..from + w]);
        whole.h[to..to + w].copy_from_slice(&patch.h[from..from + w]);
        whole.v[to..to + w].copy_from_slice(&patch.v[from..from + w]);
        whole.tp[to * k..(to + w) * k].copy_from_slice(&patch.tp[from * k..(from + w) * k]);
    }
}

/// Nuclei by hover_net's rules for one map, sorted by first pixel.
pub fn reference_nuclei(
    map: &PredictionMap,
    image: &ProcImage,
) -> Result<Vec<Nucleus>, PipelineError> {
    let rgb = image.region(image.frames().proc_rect())?;
    let (mut nuclei, _) = reference::segment_map(map, &rgb);
    nuclei.sort_by_key(Nucleus::first_pixel);
    Ok(nuclei)
}

/// The instance map `[height, width]` of sorted nuclei: id = place + 1, 0 = background.
pub fn instance_map(nuclei: &[Nucleus], grid: &PatchGrid) -> Vec<u32> {
    let [w, h] = grid.slide_px;
    let mut ids = vec![0; w as usize * h as usize];
    for (id, nucleus) in (1..).zip(nuclei) {
        for run in nucleus.runs() {
            let at = run.y as usize * w as usize + run.x0 as usize;
            ids[at..at + run.len()].fill(id);
        }
    }
    ids
}
