//! The open fragments of a tile: runs, then one plane per channel over the pixels of all fragments.
//!
//! Neighbouring pixels are alike, so a plane holds differences to the pixel before: zstd then
//! halves it. h and v are split into a plane of low and one of high bytes.

use super::{ChunkError, Reader, Writer};
use crate::geometry::Rect;
use crate::nuclei::{Foreground, Run};

pub(super) fn encode(
    fragments: &[Foreground],
    tile: Rect,
    types: usize,
    out: &mut Writer,
) -> Result<(), ChunkError> {
    out.len(fragments.len());
    for fragment in fragments {
        check(fragment, tile, types)?;
        out.len(fragment.runs.len());
        let (mut y, mut x) = (tile.y, tile.x);
        for run in &fragment.runs {
            out.unsigned((run.y - y) as u64);
            out.signed(i64::from(run.x0) - i64::from(x));
            out.len(run.len());
            (y, x) = (run.y, run.x0);
        }
    }
    let pixels: usize = fragments.iter().map(Foreground::len).sum();
    out.bytes.reserve(pixels * bytes_per_pixel(types));
    bytes_plane(fragments.iter().map(|f| &f.np[..]), out);
    words_plane(fragments.iter().map(|f| &f.h[..]), out);
    words_plane(fragments.iter().map(|f| &f.v[..]), out);
    for class in 0..types {
        let planes = fragments.iter().map(|f| channel(&f.tp, types, class));
        bytes_plane(planes, out);
    }
    for colour in 0..3 {
        bytes_plane(fragments.iter().map(|f| channel(&f.rgb, 3, colour)), out);
    }
    Ok(())
}

pub(super) fn decode(
    input: &mut Reader,
    tile: Rect,
    types: usize,
) -> Result<Vec<Foreground>, ChunkError> {
    let count = input.count(1)?;
    let mut all_runs = Vec::new();
    let mut pixels = 0usize;
    for _ in 0..count {
        let runs = runs(input, tile)?;
        pixels = runs
            .iter()
            .fold(pixels, |n, run| n.saturating_add(run.len()));
        all_runs.push(runs);
    }
    // Known before anything is allocated for the pixels.
    if pixels.checked_mul(bytes_per_pixel(types)) != Some(input.remaining()) {
        return Err(ChunkError::Content(
            "has fragments of another size than their maps",
        ));
    }
    // One plane after the other, so that no more than one is in memory twice.
    let lens: Vec<usize> = all_runs
        .iter()
        .map(|runs| runs.iter().map(Run::len).sum())
        .collect();
    let np = split(undo_bytes(input.raw(pixels)?), &lens, 1);
    let h = split(undo_words(input.raw(pixels)?, input.raw(pixels)?), &lens, 1);
    let v = split(undo_words(input.raw(pixels)?, input.raw(pixels)?), &lens, 1);
    let tp = split(interleave(input, pixels, types)?, &lens, types);
    let rgb = split(interleave(input, pixels, 3)?, &lens, 3);
    let planes = np.into_iter().zip(h).zip(v).zip(tp).zip(rgb);
    let fragments: Vec<Foreground> = all_runs
        .into_iter()
        .zip(planes)
        .map(|(runs, ((((np, h), v), tp), rgb))| Foreground {
            runs,
            np,
            h,
            v,
            types,
            tp,
            rgb,
        })
        .collect();
    for fragment in &fragments {
        check(fragment, tile, types)?;
    }
    Ok(fragments)
}

/// The values of each fragment, `each` per pixel; `lens`: the fragments' pixels, which are all.
fn split<T: Copy>(plane: Vec<T>, lens: &[usize], each: usize) -> Vec<Vec<T>> {
    if lens.len() == 1 {
        return vec![plane];
    }
    let mut rest = &plane[..];
    let take = |len: &usize| {
        let (own, others) = rest.split_at(len * each);
        rest = others;
        own.to_vec()
    };
    lens.iter().map(take).collect()
}

/// Bytes per pixel of np, h, v, rgb and the class probabilities.
const fn bytes_per_pixel(types: usize) -> usize {
    types.saturating_add(1 + 2 + 2 + 3)
}

fn runs(input: &mut Reader, tile: Rect) -> Result<Vec<Run>, ChunkError> {
    let (mut y, mut x) = (i64::from(tile.y), i64::from(tile.x));
    (0..input.count(3)?)
        .map(|_| {
            y += i64::from(input.u32()?);
            x += i64::from(input.i32()?);
            let end = x + i64::from(input.u32()?);
            let px = |value| i32::try_from(value).map_err(|_| OUTSIDE);
            let run = Run {
                y: px(y)?,
                x0: px(x)?,
                x1: px(end)?,
            };
            if !inside(&run, tile) {
                return Err(OUTSIDE);
            }
            Ok(run)
        })
        .collect()
}

const OUTSIDE: ChunkError = ChunkError::Content("has a fragment outside its tile");

fn inside(run: &Run, tile: Rect) -> bool {
    !run.is_empty() && tile.contains(run.x0, run.y) && run.x1 <= tile.right()
}

/// Checks the invariants of [`Foreground`], and that it lies inside its tile.
fn check(fragment: &Foreground, tile: Rect, types: usize) -> Result<(), ChunkError> {
    let runs = &fragment.runs;
    if !runs.iter().all(|run| inside(run, tile)) {
        return Err(OUTSIDE);
    }
    let in_order = |pair: &[Run]| (pair[0].y, pair[0].x1) < (pair[1].y, pair[1].x0);
    if runs.is_empty() || !runs.windows(2).all(in_order) {
        return Err(ChunkError::Content("has a fragment with runs out of order"));
    }
    let n: usize = runs.iter().map(Run::len).sum();
    let lengths = [fragment.np.len(), fragment.h.len(), fragment.v.len()];
    if fragment.types != types
        || lengths != [n; 3]
        || fragment.tp.len() != types * n
        || fragment.rgb.len() != 3 * n
    {
        return Err(ChunkError::Content(
            "has a fragment with maps of another size",
        ));
    }
    Ok(())
}

/// Channel `at` of pixels with `channels` values each.
fn channel(values: &[u8], channels: usize, at: usize) -> Vec<u8> {
    let pixels = values.chunks_exact(channels);
    pixels.map(|pixel| pixel[at]).collect()
}

/// Writes the differences between neighbouring values of all `parts`.
fn bytes_plane(parts: impl Iterator<Item = impl AsRef<[u8]>>, out: &mut Writer) {
    let mut before = 0u8;
    for part in parts {
        let Some((first, last)) = ends(part.as_ref()) else {
            continue;
        };
        out.bytes.push(first.wrapping_sub(before));
        let steps = part.as_ref().windows(2);
        out.bytes.extend(steps.map(|w| w[1].wrapping_sub(w[0])));
        before = last;
    }
}

/// The first and the last of some values.
fn ends<T: Copy>(values: &[T]) -> Option<(T, T)> {
    Some((*values.first()?, *values.last()?))
}

/// Writes differences in zigzag, so that small ones of either sign have a high byte of 0: all low
/// bytes, then all high bytes.
fn words_plane<'a>(parts: impl Iterator<Item = &'a [i16]> + Clone, out: &mut Writer) {
    let zigzag = |value: i16, before: i16| {
        let step = value.wrapping_sub(before);
        ((step << 1) ^ (step >> 15)).to_le_bytes()
    };
    for byte in [0, 1] {
        let mut before = 0i16;
        for part in parts.clone() {
            let Some((first, last)) = ends(part) else {
                continue;
            };
            out.bytes.push(zigzag(first, before)[byte]);
            let steps = part.windows(2);
            out.bytes.extend(steps.map(|w| zigzag(w[1], w[0])[byte]));
            before = last;
        }
    }
}

fn undo_bytes(plane: &[u8]) -> Vec<u8> {
    let mut value = 0u8;
    let add = |&step| {
        value = value.wrapping_add(step);
        value
    };
    plane.iter().map(add).collect()
}

fn undo_words(low: &[u8], high: &[u8]) -> Vec<i16> {
    let mut value = 0i16;
    let add = |(&low, &high)| {
        let zigzag = u16::from_le_bytes([low, high]);
        value = value.wrapping_add((zigzag >> 1) as i16 ^ -((zigzag & 1) as i16));
        value
    };
    low.iter().zip(high).map(add).collect()
}

/// Reads `channels` planes and interleaves them pixel by pixel.
fn interleave(input: &mut Reader, pixels: usize, channels: usize) -> Result<Vec<u8>, ChunkError> {
    let mut values = vec![0; pixels * channels];
    for at in 0..channels {
        let steps = input.raw(pixels)?;
        let mut value = 0u8;
        for (pixel, &step) in values.chunks_exact_mut(channels).zip(steps) {
            value = value.wrapping_add(step);
            pixel[at] = value;
        }
    }
    Ok(values)
}
