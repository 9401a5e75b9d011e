//! Labelled runs of a blob -> [`Nucleus`]es with their masks and sums.
//!
//! In: a blob and its runs split by label. Out: one nucleus a label, ordered by first pixel in raster order. All sums
//! are of integers, so no order of adding changes them. Never drops or moves a pixel.

use super::foreground::{Foreground, Run};
use super::{Nucleus, StainSums};
use crate::geometry::Rect;

/// Part of one of the blob's runs, all of one label.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub run: Run,
    /// Index of its first pixel in the blob's planes.
    pub at: usize,
    /// From 1.
    pub label: u32,
}

/// Which nucleus each label becomes: they are numbered from 0 by their first piece.
pub(super) fn slots(pieces: &[Piece]) -> Vec<usize> {
    let labels = pieces.iter().map(|p| p.label).max().unwrap_or(0);
    let mut slots = vec![usize::MAX; labels as usize + 1];
    let mut next = 0;
    for piece in pieces {
        let slot = &mut slots[piece.label as usize];
        if *slot == usize::MAX {
            *slot = next;
            next += 1;
        }
    }
    slots
}

/// The nuclei of `pieces`, which come in raster order; labels that no piece has give no nucleus.
pub(super) fn gather(blob: &Foreground, pieces: &[Piece]) -> Vec<Nucleus> {
    let slot_of_label = slots(pieces);
    let mut nuclei: Vec<Nucleus> = Vec::with_capacity(slot_of_label.len() - 1);
    for piece in pieces {
        let slot = slot_of_label[piece.label as usize];
        if slot == nuclei.len() {
            nuclei.push(Nucleus::empty(blob.types, piece.run));
        }
        nuclei[slot].widen(piece.run);
    }
    for nucleus in &mut nuclei {
        nucleus.mask = vec![0; (nucleus.bbox.area() as usize).div_ceil(8)];
    }
    for piece in pieces {
        let nucleus = &mut nuclei[slot_of_label[piece.label as usize]];
        nucleus.mark(piece.run);
        nucleus.add_pixels(blob, piece.at, piece.run.len());
    }
    nuclei
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

    fn widen(&mut self, run: Run) {
        let right = self.bbox.right().max(run.x1);
        let x = self.bbox.x.min(run.x0);
        self.bbox = Rect::new(x, self.bbox.y, right - x, run.y + 1 - self.bbox.y);
    }

    /// Sets the bits of a run.
    fn mark(&mut self, run: Run) {
        let row = (run.y - self.bbox.y) as usize * self.bbox.w as usize;
        let first = row + (run.x0 - self.bbox.x) as usize;
        for bit in first..first + run.len() {
            self.mask[bit / 8] |= 1 << (bit % 8);
        }
    }

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
