//! The nuclei of a tile, one record each.

use super::{ChunkError, Reader, Writer, check_rect};
use crate::geometry::Rect;
use crate::nuclei::{Nucleus, StainSums};

/// Bytes of the shortest record: 5 of box and flag, 1 of mask, 2 of sums, 7 of stain.
const MIN_RECORD: usize = 15;

pub(super) fn encode(
    nuclei: &[Nucleus],
    tile: Rect,
    types: usize,
    out: &mut Writer,
) -> Result<(), ChunkError> {
    out.len(nuclei.len());
    for nucleus in nuclei {
        check(nucleus, tile, types)?;
        let bbox = nucleus.bbox;
        for value in [bbox.x - tile.x, bbox.y - tile.y, bbox.w, bbox.h] {
            out.unsigned(value as u64);
        }
        out.raw(&[u8::from(nucleus.cut)]);
        out.raw(&nucleus.mask);
        for &value in nucleus.prob_sums.iter().chain(&nucleus.type_counts) {
            out.unsigned(value.into());
        }
        out.unsigned(nucleus.area_px.into());
        out.unsigned(nucleus.np_sum.into());
        let stain = &nucleus.stain;
        for value in stain.rgb {
            out.unsigned(value);
        }
        out.signed(stain.hematoxylin);
        out.unsigned(stain.hematoxylin_sq);
        out.signed(stain.eosin);
        out.unsigned(stain.eosin_sq);
    }
    Ok(())
}

pub(super) fn decode(
    input: &mut Reader,
    tile: Rect,
    types: usize,
) -> Result<Vec<Nucleus>, ChunkError> {
    let each = types.saturating_mul(2).saturating_add(MIN_RECORD);
    (0..input.count(each)?)
        .map(|_| {
            let nucleus = record(input, tile, types)?;
            check(&nucleus, tile, types)?;
            Ok(nucleus)
        })
        .collect()
}

fn record(input: &mut Reader, tile: Rect, types: usize) -> Result<Nucleus, ChunkError> {
    let [dx, dy, w, h] = [input.u32()?, input.u32()?, input.u32()?, input.u32()?];
    let place = |origin: i32, offset: u32| {
        i32::try_from(i64::from(origin) + i64::from(offset)).map_err(|_| OUTSIDE)
    };
    let size = |px: u32| i32::try_from(px).map_err(|_| OUTSIDE);
    let bbox = Rect::new(place(tile.x, dx)?, place(tile.y, dy)?, size(w)?, size(h)?);
    let cut = match input.array()? {
        [0] => false,
        [1] => true,
        _ => return Err(ChunkError::Content("has a nucleus with an unknown flag")),
    };
    let mask_bytes = mask_bytes(bbox).ok_or(OUTSIDE)?;
    let mask = input.raw(mask_bytes)?.to_vec();
    let mut sums = || {
        (0..types)
            .map(|_| input.u32())
            .collect::<Result<Vec<u32>, _>>()
    };
    Ok(Nucleus {
        bbox,
        mask,
        prob_sums: sums()?,
        type_counts: sums()?,
        area_px: input.u32()?,
        np_sum: input.u32()?,
        stain: StainSums {
            rgb: [input.unsigned()?, input.unsigned()?, input.unsigned()?],
            hematoxylin: input.signed()?,
            hematoxylin_sq: input.unsigned()?,
            eosin: input.signed()?,
            eosin_sq: input.unsigned()?,
        },
        cut,
    })
}

const OUTSIDE: ChunkError = ChunkError::Content("has a nucleus outside its tile");

fn mask_bytes(bbox: Rect) -> Option<usize> {
    let bits = usize::try_from(bbox.w)
        .ok()?
        .checked_mul(usize::try_from(bbox.h).ok()?)?;
    Some(bits.div_ceil(8))
}

/// Checks that a nucleus lies inside its tile, that its mask has the box's size with `area_px` bits
/// and none beyond, and that its sums have `types` values.
fn check(nucleus: &Nucleus, tile: Rect, types: usize) -> Result<(), ChunkError> {
    let bbox = check_rect(nucleus.bbox)?;
    if bbox.intersect(&tile) != bbox {
        return Err(OUTSIDE);
    }
    if mask_bytes(bbox) != Some(nucleus.mask.len()) {
        return Err(ChunkError::Content(
            "has a mask of another size than its box",
        ));
    }
    let set: u64 = nucleus.mask.iter().map(|b| u64::from(b.count_ones())).sum();
    let padding = nucleus.mask.len() as u64 * 8 - bbox.area();
    let beyond = nucleus
        .mask
        .last()
        .is_some_and(|b| u64::from(b.leading_zeros()) < padding);
    if set != u64::from(nucleus.area_px) || set == 0 || beyond {
        return Err(ChunkError::Content("has a mask that is not its area"));
    }
    if nucleus.prob_sums.len() != types || nucleus.type_counts.len() != types {
        return Err(ChunkError::Content(
            "has a nucleus with another number of types",
        ));
    }
    Ok(())
}
