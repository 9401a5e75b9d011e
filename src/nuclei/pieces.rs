//! Labelled runs of a blob -> [`Nucleus`]es with their masks and sums.
//!
//! In: a blob and its runs split by label. Out: one nucleus per label, ordered by first pixel in
//! raster order. All sums are of integers, so the order of adding changes nothing. Never drops or
//! moves a pixel.

use super::foreground::{Foreground, Run};
use super::plane::Grid;
use super::{Nucleus, StainSums};
use crate::geometry::Rect;

/// Part of one of the blob's runs; all its pixels have one label.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub run: Run,
    /// Index of its first pixel in the blob's planes.
    pub at: usize,
    /// From 1.
    pub label: u32,
}

/// The pieces of a blob, and which nucleus each label becomes.
pub(super) struct LabelledPieces {
    /// In raster order.
    pub pieces: Vec<Piece>,
    /// By label: the nucleus's place. Nuclei are numbered from 0 in the order of their first
    /// pieces. `usize::MAX` for 0 and for labels without a piece.
    pub slot_of_label: Vec<usize>,
}

impl LabelledPieces {
    /// `pieces` in raster order.
    pub fn new(pieces: Vec<Piece>) -> LabelledPieces {
        let labels = pieces.iter().map(|p| p.label).max().unwrap_or(0);
        let mut slot_of_label = vec![usize::MAX; labels as usize + 1];
        let mut next = 0;
        for piece in &pieces {
            let slot = &mut slot_of_label[piece.label as usize];
            if *slot == usize::MAX {
                *slot = next;
                next += 1;
            }
        }
        LabelledPieces {
            pieces,
            slot_of_label,
        }
    }

    /// The whole blob as one nucleus.
    pub fn whole(blob: &Foreground) -> LabelledPieces {
        let runs = blob.runs_with_offsets();
        LabelledPieces::new(runs.map(|(run, at)| Piece { run, at, label: 1 }).collect())
    }

    /// The blob's runs, split where `label`, a plane of `grid`, changes.
    pub fn split(blob: &Foreground, grid: &Grid, label: &[u32]) -> LabelledPieces {
        let mut pieces = Vec::with_capacity(2 * blob.runs.len());
        for (run, at) in blob.runs_with_offsets() {
            let row = &label[grid.start(run)..][..run.len()];
            let mut x = 0;
            for same in row.chunk_by(|a, b| a == b) {
                let x0 = run.x0 + x as i32;
                pieces.push(Piece {
                    run: Run {
                        y: run.y,
                        x0,
                        x1: x0 + same.len() as i32,
                    },
                    at: at + x,
                    label: same[0],
                });
                x += same.len();
            }
        }
        LabelledPieces::new(pieces)
    }

    /// The place of a piece's nucleus.
    pub fn slot(&self, piece: &Piece) -> usize {
        self.slot_of_label[piece.label as usize]
    }

    /// The nuclei, in the order of their first pieces.
    pub fn collect_nuclei(&self, blob: &Foreground) -> Vec<Nucleus> {
        let mut nuclei: Vec<Nucleus> = Vec::with_capacity(self.slot_of_label.len() - 1);
        for piece in &self.pieces {
            let slot = self.slot(piece);
            if slot == nuclei.len() {
                nuclei.push(Nucleus::empty(blob.types, piece.run));
            }
            nuclei[slot].widen(piece.run);
        }
        for nucleus in &mut nuclei {
            nucleus.mask = vec![0; (nucleus.bbox.area() as usize).div_ceil(8)];
        }
        for piece in &self.pieces {
            let nucleus = &mut nuclei[self.slot(piece)];
            nucleus.set_run(piece.run);
            nucleus.add_pixels(blob, piece.at, piece.run.len());
        }
        nuclei
    }
}

#[cfg(test)]
impl Nucleus {
    /// A nucleus of `runs` in raster order, with sums of 0.
    pub fn from_runs(runs: &[Run]) -> Nucleus {
        let mut nucleus = Nucleus::empty(0, runs[0]);
        runs.iter().for_each(|run| nucleus.widen(*run));
        nucleus.mask = vec![0; (nucleus.bbox.area() as usize).div_ceil(8)];
        for run in runs {
            nucleus.set_run(*run);
            nucleus.area_px += run.len() as u32;
        }
        nucleus
    }

    /// A nucleus drawn with `#` whose first row starts at (`x`, `y`), proc px.
    pub fn drawn(x: i32, y: i32, rows: &[&str]) -> Nucleus {
        Nucleus::from_runs(&drawn_runs(x, y, rows))
    }
}

/// Runs of one pixel each, drawn with `#`.
#[cfg(test)]
pub(super) fn drawn_runs(x: i32, y: i32, rows: &[&str]) -> Vec<Run> {
    let drawn_row = |(row, y): (&&str, i32)| {
        let row = row.bytes().zip(x..).filter(|(c, _)| *c == b'#');
        let runs = row.map(move |(_, x0)| Run { y, x0, x1: x0 + 1 });
        runs.collect::<Vec<_>>()
    };
    rows.iter().zip(y..).flat_map(drawn_row).collect()
}

impl Nucleus {
    fn empty(types: usize, first: Run) -> Nucleus {
        Nucleus {
            bbox: Rect::new(first.x0, first.y, first.x1 - first.x0, 1),
            mask: Vec::new(),
            area_px: 0,
            prob_sums: vec![0; types],
            type_counts: vec![0; types],
            np_sum: 0,
            stain: StainSums::default(),
            cut: false,
        }
    }

    /// Widens the box to hold `run`, which comes later in raster order.
    fn widen(&mut self, run: Run) {
        let right = self.bbox.right().max(run.x1);
        let x = self.bbox.x.min(run.x0);
        self.bbox = Rect::new(x, self.bbox.y, right - x, run.y + 1 - self.bbox.y);
    }

    /// Adds `len` pixels of the blob's planes, from index `at` on, to the sums.
    fn add_pixels(&mut self, blob: &Foreground, at: usize, len: usize) {
        self.area_px += len as u32;
        self.np_sum += blob.np[at..at + len]
            .iter()
            .map(|&p| u32::from(p))
            .sum::<u32>();
        self.stain.add(&blob.rgb[at * 3..(at + len) * 3]);
        if blob.types == 0 {
            return;
        }
        for probabilities in
            blob.tp[at * blob.types..(at + len) * blob.types].chunks_exact(blob.types)
        {
            let mut most = 0;
            for (id, (&p, sum)) in probabilities.iter().zip(&mut self.prob_sums).enumerate() {
                *sum += u32::from(p);
                // Ties go to the lowest id.
                if p > probabilities[most] {
                    most = id;
                }
            }
            self.type_counts[most] += 1;
        }
    }
}
