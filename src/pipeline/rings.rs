//! The rings of a slide's nuclei: a second look at its pixels, when all nuclei are known.
//!
//! In: the joined nuclei, the slide. Out: one [`Ring`] each. Never reads a file but the slide, and never writes one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::features::ring::{self, Around, Ring};
use crate::nuclei::Nucleus;
use crate::slide::blocks::ProcImage;

/// Bytes of blocks that are kept for each thread that goes through a row of blocks.
const CACHE_BYTES_PER_THREAD: usize = 16 << 20;

/// Bytes of blocks to keep. Where a device runs the network (`on_device`) every thread of rayon gets its share; a CPU
/// that runs the network is small, and its memory is planned for two threads.
pub fn cache_bytes(on_device: bool) -> usize {
    match on_device {
        false => 2 * CACHE_BYTES_PER_THREAD,
        true => rayon::current_num_threads().max(2) * CACHE_BYTES_PER_THREAD,
    }
}

/// What the user should know where rings are empty for want of pixels.
pub fn unread_warning(unread: usize) -> Option<String> {
    (unread > 0).then(|| {
        format!("the tissue around {unread} nuclei could not be read: their ring columns are empty")
    })
}

/// The rings of `nuclei` on `image`, and how many of them could not be read; `None` if `stop` was set meanwhile.
pub fn measure(
    nuclei: &[Nucleus],
    image: &ProcImage,
    stop: &AtomicBool,
) -> Option<(Vec<Ring>, usize)> {
    let unread = AtomicUsize::new(0);
    let around = Around {
        slide: image.frames().proc_rect(),
        mpp: image.frames().proc_mpp(),
        pixels: |field| {
            let pixels = image.region(field).ok();
            unread.fetch_add(usize::from(pixels.is_none()), Ordering::Relaxed);
            pixels
        },
    };
    let rings = ring::rings(nuclei, &around, stop)?;
    Some((rings, unread.into_inner()))
}
