//! Colour of a pixel -> optical densities of hematoxylin and eosin, as exact integers.
//!
//! In: sRGB pixels. Out: the sums of [`StainSums`], densities in units of 1 / [`OD_SCALE`]. They
//! are integers, so that sums do not depend on the order in which pixels, rows or tiles are added.
//! Never normalises a slide's colours.

use std::sync::LazyLock;

use super::StainSums;

/// Optical density of red, green and blue (columns) for hematoxylin, eosin and DAB (rows): Ruifrok
/// & Johnston 2001, as scikit-image's `rgb_from_hed`.
const RGB_FROM_HED: [[f64; 3]; 3] = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]];

/// Units of [`StainSums`] in an optical density of 1.
pub const OD_SCALE: f64 = 10_000.0;

/// Bits below the unit in the table: a pixel's density is rounded once, after its three channels
/// are added.
const FRACTION_BITS: u32 = 12;

/// By channel and value: its share of the densities of hematoxylin and eosin.
static SHARES: LazyLock<[[[i32; 2]; 256]; 3]> = LazyLock::new(|| {
    let hed_from_rgb = inverse(RGB_FROM_HED);
    let unit = OD_SCALE * f64::from(1 << FRACTION_BITS);
    let mut shares = [[[0; 2]; 256]; 3];
    for (channel, table) in shares.iter_mut().enumerate() {
        for (value, share) in table.iter_mut().enumerate() {
            let density = -((value.max(1) as f64) / 255.0).ln();
            for (stain, part) in share.iter_mut().enumerate() {
                *part = (density * hed_from_rgb[channel][stain] * unit).round() as i32;
            }
        }
    }
    shares
});

/// Optical densities of hematoxylin and eosin of one pixel, in units of 1 / [`OD_SCALE`], rounded
/// half up.
///
/// `-ln(max(value, 1) / 255)` per channel times the inverse of Ruifrok & Johnston's matrix. Unlike
/// in scikit-image's `separate_stains` a negative density stays negative, so that a sum of
/// densities is the density of the sum.
#[inline]
fn hematoxylin_eosin(shares: &[[[i32; 2]; 256]; 3], rgb: [u8; 3]) -> [i32; 2] {
    let (r, g, b) = (
        shares[0][usize::from(rgb[0])],
        shares[1][usize::from(rgb[1])],
        shares[2][usize::from(rgb[2])],
    );
    let half = 1 << (FRACTION_BITS - 1);
    [0, 1].map(|stain| (r[stain] + g[stain] + b[stain] + half) >> FRACTION_BITS)
}

impl StainSums {
    /// Adds pixels, `[n, 3]`, 8 bits per channel.
    pub fn add(&mut self, rgb: &[u8]) {
        let shares = &*SHARES;
        let mut colour = [0u64; 3];
        for pixel in rgb.chunks_exact(3) {
            let pixel = [pixel[0], pixel[1], pixel[2]];
            let [h, e] = hematoxylin_eosin(shares, pixel).map(i64::from);
            for (sum, value) in colour.iter_mut().zip(pixel) {
                *sum += u64::from(value);
            }
            self.hematoxylin += h;
            self.hematoxylin_sq += (h * h) as u64;
            self.eosin += e;
            self.eosin_sq += (e * e) as u64;
        }
        for (sum, added) in self.rgb.iter_mut().zip(colour) {
            *sum += added;
        }
    }
}

fn inverse(m: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let cofactor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|c| m[0][c] * cofactor(0, c)).sum();
    let mut out = [[0.0; 3]; 3];
    for (r, row) in out.iter_mut().enumerate() {
        for (c, value) in row.iter_mut().enumerate() {
            *value = cofactor(c, r) / determinant;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `skimage.color.separate_stains` of scikit-image 0.26 without its division by `log(1e-6)` and
    /// its clipping at 0: `-np.log(np.maximum(rgb, 1) / 255) @ hed_from_rgb`.
    #[test]
    fn densities_are_those_of_scikit_images_matrix() {
        let table: [([u8; 3], [f64; 2]); 5] = SKIMAGE_DENSITIES;
        for (rgb, expected) in table {
            let found = hematoxylin_eosin(&SHARES, rgb).map(f64::from);
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e * OD_SCALE).abs() <= 0.502, "{rgb:?}: {f} for {e}");
            }
        }
    }

    const SKIMAGE_DENSITIES: [([u8; 3], [f64; 2]); 5] = [
        ([255, 255, 255], [0.0000000, 0.0000000]),
        ([0, 0, 0], [6.7058560, -1.9580748]),
        ([120, 60, 140], [0.9592904, 0.5942366]),
        ([230, 180, 210], [0.0539581, 0.1979823]),
        ([1, 255, 77], [9.6856384, -6.1590890]),
    ];

    /// `skimage.color.rgb2hed` of scikit-image 0.26 (tests/fixtures/make_stain.py): in units of
    /// -ln(1e-6), clipped at 0.
    #[test]
    fn densities_are_rgb2hed_in_other_units_and_not_cut_off() {
        let text = include_str!("../../tests/fixtures/stain.json");
        let cases: serde_json::Value = serde_json::from_str(text).unwrap();
        let rows = |name: &str| cases[name].as_array().unwrap().clone();
        let (rgb, hed) = (rows("rgb"), rows("hed"));
        assert_eq!((rgb.len(), hed.len()), (300, 300));
        let unit = -(1e-6f64.ln()) * OD_SCALE;
        for (rgb, hed) in rgb.iter().zip(&hed) {
            let pixel = [0, 1, 2].map(|c| rgb[c].as_u64().unwrap() as u8);
            for (i, found) in hematoxylin_eosin(&SHARES, pixel).into_iter().enumerate() {
                let expected = hed[i].as_f64().unwrap() * unit;
                let found = f64::from(found.max(0));
                assert!(
                    (found - expected).abs() <= 0.51,
                    "{pixel:?}: {found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn sums_do_not_depend_on_how_pixels_are_grouped() {
        let pixels: Vec<u8> = (0..999u32).map(|i| (i * 97 % 256) as u8).collect();
        let mut whole = StainSums::default();
        whole.add(&pixels);
        let mut parts = StainSums::default();
        for chunk in pixels.chunks(33) {
            parts.add(chunk);
        }
        assert_eq!(whole, parts);
        assert_eq!(
            whole.rgb[1],
            pixels.chunks(3).map(|p| u64::from(p[1])).sum::<u64>()
        );
    }
}
