//! What happens to one patch, on slides and images alike: its pixels are read, and its map becomes foreground.
//!
//! In: proc pixels, the patch grid, a network's map. Out: the patch's [`Foreground`]. The network itself runs
//! between the two, in whatever batches suit the device. Never knows which tile a patch belongs to.

use image::RgbImage;

use crate::geometry::Rect;
use crate::nuclei::Foreground;
use crate::plan::{PatchGrid, PatchIndex};
use crate::prediction::QuantisedMap;
use crate::slide::SlideError;
use crate::slide::blocks::ProcImage;

/// Reads a patch's input window: `patch_in_px` a side, mirrored beyond the rim.
pub fn read_patch(
    image: &ProcImage,
    grid: &PatchGrid,
    index: PatchIndex,
) -> Result<RgbImage, SlideError> {
    image.region(grid.in_rect(index))
}

/// Keeps of a patch's map what is nucleus by `np_threshold`, with its pixels. `patch` is the input window that `map`
/// was predicted from. Returns the output square in proc px beside it.
pub fn foreground_of_patch(
    map: &QuantisedMap,
    patch: &RgbImage,
    grid: &PatchGrid,
    index: PatchIndex,
    np_threshold: f32,
) -> (Rect, Foreground) {
    let square = grid.out_rect(index);
    let margin_px = ((grid.patch_in_px - grid.patch_out_px) / 2) as usize;
    let origin = (square.x, square.y);
    let foreground = Foreground::from_patch(map, patch, margin_px, origin, square, np_threshold);
    (square, foreground)
}
