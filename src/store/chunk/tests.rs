use proptest::prelude::*;

use super::*;
use crate::nuclei::{Foreground, Nucleus, Run, StainSums};

const KEY: ChunkKey = ChunkKey {
    identity: [7; 32],
    tile_patches: 4,
};

/// Numbers that look random and are the same on every machine.
fn noise(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_add(1);
    move |below| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % below
    }
}

fn fragment(rect: Rect, types: usize, seed: u64) -> Foreground {
    let mut next = noise(seed);
    let mut f = Foreground {
        types,
        ..Default::default()
    };
    for y in rect.y..rect.bottom().min(rect.y + 5) {
        let mut x = rect.x;
        for _ in 0..=next(2) {
            let x0 = x + next(4) as i32;
            let x1 = x0 + 1 + next(9) as i32;
            if x1 > rect.right() {
                break;
            }
            f.runs.push(Run { y, x0, x1 });
            x = x1 + 1;
        }
    }
    let n: usize = f.runs.iter().map(Run::len).sum();
    f.np = (0..n).map(|_| next(256) as u8).collect();
    f.h = (0..n).map(|_| next(65536) as u16 as i16).collect();
    f.v = (0..n).map(|_| next(65536) as u16 as i16).collect();
    f.tp = (0..n * types).map(|_| next(256) as u8).collect();
    f.rgb = (0..n * 3).map(|_| next(256) as u8).collect();
    f
}

fn nucleus(rect: Rect, types: usize, seed: u64) -> Nucleus {
    let mut next = noise(seed);
    let bbox = Rect::new(rect.x + 1 + next(5) as i32, rect.y + next(9) as i32, 5, 3);
    let mask = vec![next(255) as u8 | 1, next(128) as u8];
    Nucleus {
        bbox,
        area_px: mask.iter().map(|b| b.count_ones()).sum(),
        mask,
        prob_sums: (0..types).map(|_| next(1 << 31) as u32).collect(),
        type_counts: (0..types).map(|_| next(16) as u32).collect(),
        np_sum: next(4000) as u32,
        stain: StainSums {
            rgb: [next(4000), 0, u64::MAX],
            hematoxylin: -(next(1 << 31) as i64),
            hematoxylin_sq: next(1 << 31) << 20,
            eosin: i64::MIN,
            eosin_sq: next(9),
        },
        cut: next(2) == 1,
    }
}

fn tile(seed: u64, types: usize, nuclei: u64, fragments: u64) -> TileResult {
    let rect = Rect::new(1024, -64, 64, 32);
    TileResult {
        col: 3,
        row: 5,
        rect,
        done_px: 1500,
        unreadable_px: 500,
        outside_px: 48,
        unreadable: vec![PatchIndex {
            col: -1,
            row: 70_000,
        }],
        read_errors: vec!["level 0 at (3, 4): é".into()],
        nuclei: (0..nuclei)
            .map(|i| nucleus(rect, types, seed + i))
            .collect(),
        fragments: (0..fragments)
            .map(|i| fragment(rect, types, seed + i))
            .collect(),
    }
}

fn encoded(tile: &TileResult) -> Vec<u8> {
    encode(tile, &KEY, "cpu avx2, torch 2.11").unwrap()
}

proptest! {
    #[test]
    fn tiles_come_back(seed: u64, types in 0usize..7, nuclei in 0u64..5, fragments in 0u64..5) {
        let tile = tile(seed >> 8, types, nuclei, fragments);
        // A tile without nuclei and fragments has no types to speak of; one fragment is enough.
        let (back, numerics) = decode(&encoded(&tile), &KEY, [3, 5]).unwrap();
        prop_assert_eq!(back, tile);
        prop_assert_eq!(numerics, "cpu avx2, torch 2.11");
    }

    #[test]
    fn mutated_bytes_are_a_tile_or_an_error(
        seed: u64,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        truncate: bool,
    ) {
        let mut bytes = encoded(&tile(seed >> 8, 3, 2, 2));
        for (at, value) in edits {
            // The first 37 bytes are the format and identity: past them the content is reached.
            let at = 37 + at.index(bytes.len() - 37);
            bytes[at] = value;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok((tile, numerics)) = decode(&bytes, &KEY, [3, 5]) {
            // Whatever is accepted obeys the invariants: it can be written again.
            prop_assert!(encode(&tile, &KEY, &numerics).is_ok());
        }
    }

    #[test]
    fn any_bytes_are_an_error(tail in prop::collection::vec(any::<u8>(), 0..300), good_head: bool) {
        let mut bytes = Vec::new();
        if good_head {
            bytes.extend_from_slice(&encoded(&tile(1, 2, 0, 0))[..45]);
        }
        bytes.extend(tail);
        if let Ok((tile, numerics)) = decode(&bytes, &KEY, [3, 5]) {
            prop_assert!(encode(&tile, &KEY, &numerics).is_ok());
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = encoded(&tile(9, 4, 3, 3));
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len], &KEY, [3, 5]).is_err(), "{len} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(decode(&longer, &KEY, [3, 5]).is_err());
    assert!(decode(&vec![0; bytes.len()], &KEY, [3, 5]).is_err());
}

#[test]
fn a_chunk_of_another_store_tile_or_version_says_so() {
    let mut bytes = encoded(&tile(9, 4, 3, 3));
    let other = ChunkKey {
        identity: [8; 32],
        ..KEY
    };
    assert_eq!(decode(&bytes, &other, [3, 5]), Err(ChunkError::Identity));
    let other = ChunkKey {
        tile_patches: 5,
        ..KEY
    };
    assert_eq!(decode(&bytes, &other, [3, 5]), Err(ChunkError::Identity));
    assert_eq!(decode(&bytes, &KEY, [3, 6]), Err(ChunkError::Tile(3, 5)));
    bytes[4] = 9;
    assert_eq!(decode(&bytes, &KEY, [3, 5]), Err(ChunkError::Version(9)));
    bytes[0] = b'X';
    assert_eq!(decode(&bytes, &KEY, [3, 5]), Err(ChunkError::Magic));
}

#[test]
fn what_breaks_the_contract_is_not_written() {
    let good = tile(9, 4, 1, 1);
    let broken = |change: fn(&mut TileResult)| {
        let mut tile = good.clone();
        change(&mut tile);
        encode(&tile, &KEY, "").unwrap_err()
    };
    broken(|t| t.nuclei[0].bbox.x = 0);
    broken(|t| t.nuclei[0].area_px += 1);
    broken(|t| t.nuclei[0].mask[1] |= 0x80);
    broken(|t| t.nuclei[0].type_counts.clear());
    broken(|t| t.fragments[0].runs.reverse());
    broken(|t| t.fragments[0].np.truncate(1));
    broken(|t| t.fragments[0].types = 3);
    broken(|t| t.rect.w = i32::MAX);
}

#[test]
fn a_count_that_promises_the_moon_allocates_nothing() {
    // A header, then 2^60 nuclei.
    let mut bytes = encoded(&tile(9, 0, 0, 0));
    bytes.truncate(bytes.len() - 2);
    let mut count = Writer::default();
    count.unsigned(1 << 60);
    bytes.extend(count.bytes);
    assert_eq!(
        decode(&bytes, &KEY, [3, 5]),
        Err(WireError::Truncated.into())
    );
}

/// A chunk of format 1 did not say which patches cannot be read: it counts where there are none, else its tile runs
/// again.
#[test]
fn chunks_of_format_1_are_read_where_nothing_is_lost() {
    let format_1 = |unreadable_px: u64| {
        let tile = TileResult {
            unreadable_px,
            unreadable: vec![],
            ..tile(9, 4, 3, 3)
        };
        let mut bytes = encoded(&tile);
        // Format 2 has the number of unreadable patches, here one byte of 0, before the one read error.
        let text = "level 0 at (3, 4): é".as_bytes();
        let at = bytes.windows(text.len()).position(|w| w == text).unwrap();
        assert_eq!(bytes[at - 3..at], [0, 1, text.len() as u8]);
        bytes.remove(at - 3);
        bytes[4] = 1;
        (decode(&bytes, &KEY, [3, 5]).map(|(tile, _)| tile), tile)
    };
    let (found, expected) = format_1(0);
    assert_eq!(found, Ok(expected));
    assert_eq!(format_1(500).0, Err(ChunkError::Version(1)));
}
