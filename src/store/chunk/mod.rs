//! One tile's result as bytes.
//!
//! In: a [`TileResult`]. Out: a chunk that says which store, tile and format it belongs to, and
//! back. Layout: header (magic, version, identity, tile grid, tile, numerics, pixel counts, unreadable patches, read
//! errors), nuclei, fragments; numbers as in `wire`. Decoding takes any bytes: it gives the tile
//! or a reason, never panics, and allocates no more than a small multiple of what it is given.

mod fragments;
mod nuclei;

use super::TileResult;
use super::wire::{Reader, WireError, Writer};
use crate::geometry::Rect;
use crate::plan::PatchIndex;

const MAGIC: [u8; 4] = *b"WSIN";
/// Raised whenever the layout changes.
const VERSION: u8 = 2;
/// Did not say which patches cannot be read: the same where there are none.
const WITHOUT_UNREADABLE: u8 = 1;
/// Most types: every label format has one byte for them.
const MAX_TYPES: usize = 256;

/// What every chunk of one store has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkKey {
    /// Hash of the run's identity.
    pub identity: [u8; 32],
    /// Patches per tile side: another grid's tiles have other pixels under the same index.
    pub tile_patches: i32,
}

/// Why a chunk cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes end too early, or hold a number or text that cannot be.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The bytes do not begin as a chunk does.
    #[error("is not a chunk of a nuclei store")]
    Magic,
    /// Another version of this program wrote the chunk in another layout.
    #[error("has format {0}, this program knows {VERSION}")]
    Version(u8),
    /// The chunk was made with other settings.
    #[error("belongs to a run with other settings")]
    Identity,
    /// The chunk lies in the place of another tile.
    #[error("belongs to tile ({0}, {1})")]
    Tile(i32, i32),
    /// The content contradicts itself.
    #[error("{0}")]
    Content(&'static str),
}

/// Checks what every box of a tile must satisfy: not empty, and no overflow at its far corner.
fn check_rect(rect: Rect) -> Result<Rect, ChunkError> {
    let far = (rect.x.checked_add(rect.w), rect.y.checked_add(rect.h));
    match far {
        (Some(_), Some(_)) if !rect.is_empty() => Ok(rect),
        _ => Err(ChunkError::Content("has an impossible box")),
    }
}

/// The bytes of one tile. `numerics` names the hardware and libraries that made it.
///
/// # Errors
/// What of the tile breaks its contract.
pub fn encode(tile: &TileResult, key: &ChunkKey, numerics: &str) -> Result<Vec<u8>, ChunkError> {
    let rect = check_rect(tile.rect)?;
    let types = tile
        .nuclei
        .first()
        .map(|n| n.prob_sums.len())
        .or(tile.fragments.first().map(|f| f.types))
        .unwrap_or(0);
    let mut out = Writer::default();
    out.raw(&MAGIC);
    out.raw(&[VERSION]);
    out.raw(&key.identity);
    for value in [
        key.tile_patches,
        tile.col,
        tile.row,
        rect.x,
        rect.y,
        rect.w,
        rect.h,
    ] {
        out.signed(value.into());
    }
    out.text(numerics);
    for px in [tile.done_px, tile.unreadable_px, tile.outside_px] {
        out.unsigned(px);
    }
    out.len(tile.unreadable.len());
    for patch in &tile.unreadable {
        out.signed(patch.col.into());
        out.signed(patch.row.into());
    }
    out.len(tile.read_errors.len());
    for error in &tile.read_errors {
        out.text(error);
    }
    out.len(types);
    nuclei::encode(&tile.nuclei, rect, types, &mut out)?;
    fragments::encode(&tile.fragments, rect, types, &mut out)?;
    Ok(out.bytes)
}

/// The tile at `[col, row]` and its numerics.
///
/// # Errors
/// Why `bytes` are not exactly that tile of that store.
pub fn decode(
    bytes: &[u8],
    key: &ChunkKey,
    [col, row]: [i32; 2],
) -> Result<(TileResult, String), ChunkError> {
    let mut input = Reader::new(bytes);
    if input.array::<4>()? != MAGIC {
        return Err(ChunkError::Magic);
    }
    let [version] = input.array()?;
    if !(WITHOUT_UNREADABLE..=VERSION).contains(&version) {
        return Err(ChunkError::Version(version));
    }
    let identity: [u8; 32] = input.array()?;
    if identity != key.identity || input.i32()? != key.tile_patches {
        return Err(ChunkError::Identity);
    }
    let tile = [input.i32()?, input.i32()?];
    if tile != [col, row] {
        return Err(ChunkError::Tile(tile[0], tile[1]));
    }
    let rect = check_rect(Rect::new(
        input.i32()?,
        input.i32()?,
        input.i32()?,
        input.i32()?,
    ))?;
    let numerics = input.text()?.to_owned();
    let [done_px, unreadable_px, outside_px] =
        [input.unsigned()?, input.unsigned()?, input.unsigned()?];
    let unreadable = match version {
        WITHOUT_UNREADABLE if unreadable_px == 0 => Vec::new(),
        WITHOUT_UNREADABLE => return Err(ChunkError::Version(version)),
        _ => (0..input.count(2)?)
            .map(|_| {
                Ok(PatchIndex {
                    col: input.i32()?,
                    row: input.i32()?,
                })
            })
            .collect::<Result<_, WireError>>()?,
    };
    let read_errors = (0..input.count(1)?)
        .map(|_| input.text().map(str::to_owned))
        .collect::<Result<_, _>>()?;
    let types = usize::try_from(input.unsigned()?)
        .ok()
        .filter(|&types| types <= MAX_TYPES)
        .ok_or(ChunkError::Content("has an impossible number of types"))?;
    let nuclei = nuclei::decode(&mut input, rect, types)?;
    let fragments = fragments::decode(&mut input, rect, types)?;
    if input.remaining() > 0 {
        return Err(ChunkError::Content("goes on after its end"));
    }
    let tile = TileResult {
        col,
        row,
        rect,
        done_px,
        unreadable_px,
        outside_px,
        unreadable,
        read_errors,
        nuclei,
        fragments,
    };
    Ok((tile, numerics))
}

#[cfg(test)]
mod tests;
