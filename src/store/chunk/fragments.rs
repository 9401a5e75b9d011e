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
    bytes_plane(fragments.iter().flat_map(|f| f.np.iter().copied()), out);
    words_plane(fragments.iter().flat_map(|f| f.h.iter().copied()), out);
    words_plane(fragments.iter().flat_map(|f| f.v.iter().copied()), out);
    for class in 0..types {
        let plane = |f| channel(f, types, class);
        bytes_plane(fragments.iter().map(|f| &f.tp[..]).flat_map(plane), out);
    }
    for colour in 0..3 {
        let plane = |f| channel(f, 3, colour);
        bytes_plane(fragments.iter().map(|f| &f.rgb[..]).flat_map(plane), out);
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
    let np = undo_bytes(input.raw(pixels)?);
    let h = undo_words(input.raw(pixels)?, input.raw(pixels)?);
    let v = undo_words(input.raw(pixels)?, input.raw(pixels)?);
    let tp = interleave(input, pixels, types)?;
    let rgb = interleave(input, pixels, 3)?;

    let mut fragments = Vec::with_capacity(all_runs.len());
    let mut from = 0;
    for runs in all_runs {
        let to = from + runs.iter().map(Run::len).sum::<usize>();
        let fragment = Foreground {
            runs,
            np: np[from..to].to_vec(),
            h: h[from..to].to_vec(),
            v: v[from..to].to_vec(),
            types,
            tp: tp[from * types..to * types].to_vec(),
            rgb: rgb[from * 3..to * 3].to_vec(),
        };
        check(&fragment, tile, types)?;
        fragments.push(fragment);
        from = to;
    }
    Ok(fragments)
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
fn channel(values: &[u8], channels: usize, at: usize) -> impl Iterator<Item = u8> + '_ {
    values.iter().skip(at).step_by(channels).copied()
}

fn bytes_plane(values: impl Iterator<Item = u8>, out: &mut Writer) {
    let mut before = 0u8;
    out.bytes
        .extend(values.map(|value| value.wrapping_sub(std::mem::replace(&mut before, value))));
}

fn undo_bytes(plane: &[u8]) -> Vec<u8> {
    let mut value = 0u8;
    let add = |&step| {
        value = value.wrapping_add(step);
        value
    };
    plane.iter().map(add).collect()
}

/// Writes differences in zigzag, so that small ones of either sign have a high byte of 0: all low
/// bytes, then all high bytes.
fn words_plane(values: impl Iterator<Item = i16> + Clone, out: &mut Writer) {
    let steps = || {
        let mut before = 0i16;
        values.clone().map(move |value| {
            let step = value.wrapping_sub(std::mem::replace(&mut before, value));
            ((step << 1) ^ (step >> 15)).to_le_bytes()
        })
    };
    out.bytes.extend(steps().map(|[low, _]| low));
    out.bytes.extend(steps().map(|[_, high]| high));
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
        let plane = undo_bytes(input.raw(pixels)?);
        for (value, plain) in values.iter_mut().skip(at).step_by(channels).zip(plane) {
            *value = plain;
        }
    }
    Ok(values)
}
