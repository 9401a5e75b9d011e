//! The form of predictions after the network: the pixels that np calls nucleus, and nothing else.
//!
//! In: the dense [`QuantisedMap`] of one patch. Out: a [`Foreground`]. A patch, a tile, a blob and an open fragment are all a `Foreground`; they differ only in extent. Never
//! holds a pixel outside nuclei: memory follows the nuclei and not the slide, and post-processing
//! cannot depend on the rest (docs/decisions/0001-blobs-are-pure-functions.md).

use image::RgbImage;

use crate::geometry::Rect;
pub use crate::prediction::HV_SCALE;
use crate::prediction::{QuantisedMap, quantise_probability};

/// Pixels `x0..x1` of row `y`, proc px.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Row.
    pub y: i32,
    /// First column.
    pub x0: i32,
    /// First column right of the run.
    pub x1: i32,
}

impl Run {
    /// Number of pixels.
    pub const fn len(&self) -> usize {
        (self.x1 - self.x0) as usize
    }

    /// Whether no pixel is inside.
    pub const fn is_empty(&self) -> bool {
        self.x1 <= self.x0
    }
}

/// Foreground pixels in raster order with their quantised maps.
///
/// Invariants: `runs` are sorted by (y, x0), not empty and maximal (no two touch in a row). With n
/// pixels in all, `np`, `h` and `v` have n values, `rgb` has 3 n and `tp` has `types` n (pixel by
/// pixel), in the order of the runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreground {
    /// Where the pixels are.
    pub runs: Vec<Run>,
    /// Probability of nucleus, `round(p * 255)`.
    pub np: Vec<u8>,
    /// Horizontal distance map, `round(h * HV_SCALE)`.
    pub h: Vec<i16>,
    /// Vertical distance map, `round(v * HV_SCALE)`.
    pub v: Vec<i16>,
    /// Number of type channels, background (0) included; 0 for a model without types.
    pub types: usize,
    /// Class probabilities, `round(p * 255)`, `types` per pixel.
    pub tp: Vec<u8>,
    /// Colours, 3 bytes per pixel: stain features are computed from them, so outputs need no slide.
    pub rgb: Vec<u8>,
}

/// Pixels that are looked at together: a vector register's.
const SKIPPED_PX: usize = 32;

/// Appends the runs in which np reaches the threshold, of one row that starts at (`x0`, `y`), proc
/// px.
pub fn push_runs(np: &[u8], threshold: u8, y: i32, x0: i32, runs: &mut Vec<Run>) {
    let inside = |p: &u8| *p >= threshold;
    let mut x = 0;
    while x < np.len() {
        // Most of a slide is background: skip it many pixels at a time.
        if let Some(many) = np.get(x..x + SKIPPED_PX)
            && !many.iter().fold(false, |any, p| any | inside(p))
        {
            x += SKIPPED_PX;
            continue;
        }
        let Some(skip) = np[x..].iter().position(inside) else {
            return;
        };
        let start = x + skip;
        x = np[start..]
            .iter()
            .position(|p| !inside(p))
            .map_or(np.len(), |n| start + n);
        runs.push(Run {
            y,
            x0: x0 + start as i32,
            x1: x0 + x as i32,
        });
    }
}

impl Foreground {
    /// Number of pixels.
    pub fn len(&self) -> usize {
        self.np.len()
    }

    /// Whether there is no pixel.
    pub fn is_empty(&self) -> bool {
        self.np.is_empty()
    }

    /// The nucleus pixels of one patch: the pixels inside `clip` whose np reaches the quantised threshold.
    ///
    /// `rgb` is the picture that `map` was made from, `margin_px` wider on each side. `origin`: (x, y) of the map's
    /// first pixel, proc px. `clip`: the patch's output square, proc px.
    ///
    /// # Panics
    /// If the size of `rgb` or the length of a plane does not match `map.width` and `map.height`.
    pub fn from_patch(
        map: &QuantisedMap,
        rgb: &RgbImage,
        margin_px: usize,
        origin: (i32, i32),
        clip: Rect,
        np_threshold: f32,
    ) -> Foreground {
        let (width, height) = (map.width, map.height);
        assert_eq!(
            (rgb.width() as usize, rgb.height() as usize),
            (width + 2 * margin_px, height + 2 * margin_px),
            "the picture and the prediction map must have the same size"
        );
        let window = clip.intersect(&Rect::new(origin.0, origin.1, width as i32, height as i32));
        let threshold = quantise_probability(np_threshold);
        let mut runs = Vec::new();
        for y in window.y..window.bottom() {
            let from = (y - origin.1) as usize * width + (window.x - origin.0) as usize;
            let row = &map.np[from..from + window.w as usize];
            push_runs(row, threshold, y, window.x, &mut runs);
        }
        let pixels = runs.iter().map(Run::len).sum();
        let mut fg = Foreground::with_capacity(map.types, pixels);
        for run in &runs {
            let (x, y) = ((run.x0 - origin.0) as usize, (run.y - origin.1) as usize);
            fg.push_predictions(map, rgb, margin_px, (x, y), run.len());
        }
        fg.runs = runs;
        fg
    }

    /// Appends `len` pixels of a map from (`x`, `y`) on, but not their run; `rgb` is `margin_px` wider than the map.
    pub(super) fn push_predictions(
        &mut self,
        map: &QuantisedMap,
        rgb: &RgbImage,
        margin_px: usize,
        (x, y): (usize, usize),
        len: usize,
    ) {
        let at = y * map.width + x;
        self.np.extend_from_slice(&map.np[at..at + len]);
        self.h.extend_from_slice(&map.h[at..at + len]);
        self.v.extend_from_slice(&map.v[at..at + len]);
        let (types, plane) = (map.types, map.width * map.height);
        let first = self.tp.len();
        self.tp.resize(first + types * len, 0);
        for kind in 0..types {
            let from = &map.tp[kind * plane + at..kind * plane + at + len];
            let to = self.tp[first..].iter_mut().skip(kind).step_by(types);
            to.zip(from).for_each(|(to, from)| *to = *from);
        }
        let pixel = (y + margin_px) * rgb.width() as usize + x + margin_px;
        self.rgb
            .extend_from_slice(&rgb.as_raw()[pixel * 3..(pixel + len) * 3]);
    }

    /// Joins disjoint parts (patches of a tile, fragments of a blob), in any order.
    ///
    /// Runs that touch across a seam become one. A pixel that is in two parts is kept once.
    pub fn merge(parts: &[Foreground]) -> Foreground {
        let pixels = parts.iter().map(Foreground::len).sum();
        let types = parts
            .iter()
            .find(|part| !part.is_empty())
            .map_or(0, |part| part.types);
        let mut merged = Foreground::with_capacity(types, pixels);
        let mut pieces: Vec<(Run, &Foreground, usize)> = Vec::new();
        for part in parts {
            debug_assert!(part.is_empty() || part.types == types);
            pieces.extend(part.runs_with_offsets().map(|(run, at)| (run, part, at)));
        }
        // The stable sort uses stretches that are sorted already: near-linear for tiles and
        // fragments.
        pieces.sort_by_key(|(run, _, _)| *run);
        for (run, part, at) in pieces {
            let x0 = match merged.runs.last() {
                Some(last) if last.y == run.y => run.x0.max(last.x1),
                _ => run.x0,
            };
            if x0 < run.x1 {
                let from = at + (x0 - run.x0) as usize;
                merged.push_run(Run { x0, ..run }, part, from);
            }
        }
        merged
    }

    /// Drops the runs that `keep` does not want, without other memory for those that stay.
    pub(super) fn retain_runs(&mut self, mut keep: impl FnMut(Run) -> bool) {
        let (types, mut from, mut to) = (self.types, 0, 0);
        self.runs.retain(|&run| {
            let pixels = from..from + run.len();
            from += run.len();
            let stays = keep(run);
            if stays {
                let bytes = |each: usize| pixels.start * each..pixels.end * each;
                self.np.copy_within(pixels.clone(), to);
                self.h.copy_within(pixels.clone(), to);
                self.v.copy_within(pixels.clone(), to);
                self.tp.copy_within(bytes(types), to * types);
                self.rgb.copy_within(bytes(3), to * 3);
                to += run.len();
            }
            stays
        });
        self.np.truncate(to);
        self.h.truncate(to);
        self.v.truncate(to);
        self.tp.truncate(to * types);
        self.rgb.truncate(to * 3);
    }

    /// Pixels of `runs`, in raster order and maximal, with values of 0.
    pub fn blank(runs: Vec<Run>, types: usize) -> Foreground {
        let pixels: usize = runs.iter().map(Run::len).sum();
        Foreground {
            runs,
            np: vec![0; pixels],
            h: vec![0; pixels],
            v: vec![0; pixels],
            types,
            tp: vec![0; types * pixels],
            rgb: vec![0; 3 * pixels],
        }
    }

    /// Takes the values of the pixels that `from`, with as many types, has as well.
    pub fn copy_values(&mut self, from: &Foreground) {
        let types = self.types;
        let (mut place, mut place_at) = (0, 0);
        for (run, at) in from.runs_with_offsets() {
            // A run that ends before this one also ends before all later ones.
            while let Some(own) = self.runs.get(place)
                && (own.y, own.x1) <= (run.y, run.x0)
            {
                place_at += own.len();
                place += 1;
            }
            // The last run that this one meets may meet the next one too.
            let mut own_at = place_at;
            for own in self.runs[place..].iter() {
                let (x0, x1) = (run.x0.max(own.x0), run.x1.min(own.x1));
                if own.y != run.y || x0 >= x1 {
                    break;
                }
                let len = (x1 - x0) as usize;
                let read = at + (x0 - run.x0) as usize;
                let write = own_at + (x0 - own.x0) as usize;
                let copy = |to: &mut [u8], from: &[u8], each: usize| {
                    to[write * each..(write + len) * each]
                        .copy_from_slice(&from[read * each..(read + len) * each]);
                };
                copy(&mut self.np, &from.np, 1);
                copy(&mut self.tp, &from.tp, types);
                copy(&mut self.rgb, &from.rgb, 3);
                self.h[write..write + len].copy_from_slice(&from.h[read..read + len]);
                self.v[write..write + len].copy_from_slice(&from.v[read..read + len]);
                own_at += own.len();
            }
        }
    }

    /// Empty, with room for `pixels` pixels.
    pub(super) fn with_capacity(types: usize, pixels: usize) -> Foreground {
        Foreground {
            runs: Vec::new(),
            np: Vec::with_capacity(pixels),
            h: Vec::with_capacity(pixels),
            v: Vec::with_capacity(pixels),
            types,
            tp: Vec::with_capacity(types * pixels),
            rgb: Vec::with_capacity(3 * pixels),
        }
    }

    /// Appends `run`, whose pixels start at index `at` of `from`; joins it to the last run if they
    /// touch.
    pub(super) fn push_run(&mut self, run: Run, from: &Foreground, at: usize) {
        match self.runs.last_mut() {
            Some(last) if last.y == run.y && last.x1 == run.x0 => last.x1 = run.x1,
            _ => self.runs.push(run),
        }
        let end = at + run.len();
        self.np.extend_from_slice(&from.np[at..end]);
        self.h.extend_from_slice(&from.h[at..end]);
        self.v.extend_from_slice(&from.v[at..end]);
        let types = from.types;
        self.tp.extend_from_slice(&from.tp[at * types..end * types]);
        self.rgb.extend_from_slice(&from.rgb[at * 3..end * 3]);
    }

    /// Each run with the index of its first pixel in `np`, `h`, `v`.
    pub fn runs_with_offsets(&self) -> impl Iterator<Item = (Run, usize)> + '_ {
        self.runs.iter().scan(0, |next, &run| {
            let at = *next;
            *next += run.len();
            Some((run, at))
        })
    }

    /// The tight box, proc px; empty for no pixels.
    pub fn bounds(&self) -> Rect {
        bounds_of(&self.runs)
    }
}

/// The tight box of runs in raster order, proc px; empty for no runs.
pub fn bounds_of(runs: &[Run]) -> Rect {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
        return Rect::new(0, 0, 0, 0);
    };
    let (mut x0, mut x1) = (first.x0, first.x1);
    for run in runs {
        x0 = x0.min(run.x0);
        x1 = x1.max(run.x1);
    }
    Rect::new(x0, first.y, x1 - x0, last.y - first.y + 1)
}
