//! Which markers of a blob become nuclei, where a lower energy threshold would find more of them.
//!
//! In: a blob's energy and a [`Division`]. Out: markers in the form of [`find_markers`], each from
//! the threshold at which the pieces around it look most like nuclei. A marker of one threshold
//! lies in exactly one marker of each higher threshold (filling, opening and the least area keep
//! this so), so the markers form trees. A piece is divided where that is expected to give more true
//! nuclei. A pure function of the blob. Never moves a border itself.

use serde::{Deserialize, Serialize};

use super::Nucleus;
use super::confidence::{TRAITS, Traits, measure_nuclei, weighted_sum};
use super::foreground::{Foreground, Run};
use super::markers::find_markers;
use super::params::PostprocParams;
use super::pieces::LabelledPieces;
use super::plane::{Grid, Scratch};
use super::watershed::label_pixels;

/// Length of [`DivisionTraits::as_array`].
pub const DIVISION_TRAITS: usize = 2 * TRAITS + 4;

/// What is measured of a piece and the parts into which it may be divided.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DivisionTraits {
    /// Of the piece.
    pub whole: Traits,
    /// Mean over the parts, weighted by their area, of [`Traits::as_array`].
    pub parts: [f64; TRAITS],
    /// ln of the smallest part's area in µm².
    pub ln_smallest_um2: f64,
    /// The smallest part's share of the area of all parts.
    pub smallest_share: f64,
    /// Number of parts.
    pub count: f64,
    /// The energy threshold at which the piece is still whole.
    pub threshold: f64,
}

impl DivisionTraits {
    /// In the order of [`Division::weights`].
    pub fn as_array(&self) -> [f64; DIVISION_TRAITS] {
        let mut array = [0.0; DIVISION_TRAITS];
        array[..TRAITS].copy_from_slice(&self.whole.as_array());
        array[TRAITS..2 * TRAITS].copy_from_slice(&self.parts);
        array[2 * TRAITS..].copy_from_slice(&[
            self.ln_smallest_um2,
            self.smallest_share,
            self.count,
            self.threshold,
        ]);
        array
    }
}

/// A linear rule: expected gain = `bias` + Σ `weights` · traits, fitted on labelled images by
/// `model tune`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Division {
    /// Energy thresholds, falling; they replace `energy_threshold`.
    pub thresholds: Vec<f32>,
    pub bias: f64,
    /// In the order of [`DivisionTraits::as_array`].
    pub weights: [f64; DIVISION_TRAITS],
}

impl Division {
    /// The gain to expect from dividing a piece: overlaps of matched nuclei, less a quarter for
    /// each additional part.
    fn expected_gain(&self, traits: &DivisionTraits) -> f64 {
        weighted_sum(self.bias, &self.weights, &traits.as_array())
    }
}

/// A piece of a blob, and the parts into which the next threshold would divide it.
pub struct Branch {
    pub whole: Nucleus,
    pub parts: Vec<Nucleus>,
    pub traits: DivisionTraits,
    /// Place of the piece's threshold.
    level: usize,
    /// Label of the piece's marker.
    label: u32,
}

#[cfg(test)]
impl Branch {
    pub fn new(whole: Nucleus, parts: Vec<Nucleus>, traits: DivisionTraits) -> Branch {
        Branch {
            whole,
            parts,
            traits,
            level: 0,
            label: 1,
        }
    }
}

/// The markers of one threshold.
pub(super) struct Level {
    pub threshold: f32,
    /// In raster order.
    pub runs: Vec<Run>,
    /// Label of each run, from 1.
    pub labels: Vec<u32>,
    /// For each marker, the label of the marker of the level before that it lies in.
    pub parents: Vec<u32>,
}

impl Level {
    fn parent(&self, label: u32) -> u32 {
        self.parents[label as usize - 1]
    }

    /// For each marker of the level before, by label, the markers of this level in it; entry 0 is
    /// empty.
    fn children(&self, above: &Level) -> Vec<Vec<u32>> {
        let mut children = vec![Vec::new(); above.parents.len() + 1];
        for (label, &parent) in (1..).zip(&self.parents) {
            children[parent as usize].push(label);
        }
        children
    }

    /// The label of the marker that a pixel lies in, 0 for none.
    fn label_at(&self, y: i32, x: i32) -> u32 {
        let after = self.runs.partition_point(|run| (run.y, run.x0) <= (y, x));
        match after.checked_sub(1).map(|i| (self.runs[i], self.labels[i])) {
            Some((run, label)) if run.y == y && x < run.x1 => label,
            _ => 0,
        }
    }
}

/// Every place where `thresholds` would divide a blob; `scratch` holds its energy.
pub(super) fn find_branches(
    blob: &Foreground,
    params: &PostprocParams,
    thresholds: &[f32],
    grid: &Grid,
    scratch: &mut Scratch,
) -> Vec<Branch> {
    let levels = find_levels(blob, params, thresholds, grid, scratch);
    measure_branches(blob, &levels, grid, scratch)
}

/// As [`find_markers`], but chooses between the thresholds of `rule`.
pub(super) fn choose_markers(
    blob: &Foreground,
    params: &PostprocParams,
    rule: &Division,
    grid: &Grid,
    scratch: &mut Scratch,
) -> u32 {
    let levels = find_levels(blob, params, &rule.thresholds, grid, scratch);
    let gains = measure_branches(blob, &levels, grid, scratch)
        .into_iter()
        .map(|b| (b.level, b.label, rule.expected_gain(&b.traits)));
    let chosen = collect_markers(&levels, &choose_divisions(&levels, gains));
    scratch.runs.clear();
    scratch.roots.clear();
    scratch.runs.extend(chosen.iter().map(|(run, _)| *run));
    scratch.roots.extend(chosen.iter().map(|(_, label)| *label));
    chosen.iter().map(|(_, label)| *label).max().unwrap_or(0)
}

/// The markers of each threshold, up to the first threshold that has none.
pub(super) fn find_levels(
    blob: &Foreground,
    params: &PostprocParams,
    thresholds: &[f32],
    grid: &Grid,
    scratch: &mut Scratch,
) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::with_capacity(thresholds.len());
    for &threshold in thresholds {
        let count = find_markers(blob, params, threshold, grid, scratch);
        if count == 0 {
            break;
        }
        let (runs, labels) = (scratch.runs.clone(), scratch.roots.clone());
        let mut parents = vec![0; count as usize];
        if let Some(above) = levels.last() {
            for (run, label) in runs.iter().zip(&labels) {
                parents[*label as usize - 1] = above.label_at(run.y, run.x0);
            }
        }
        levels.push(Level {
            threshold,
            runs,
            labels,
            parents,
        });
    }
    levels
}

/// A branch for each marker that holds two or more markers of the next level.
fn measure_branches(
    blob: &Foreground,
    levels: &[Level],
    grid: &Grid,
    scratch: &mut Scratch,
) -> Vec<Branch> {
    let mut branches = Vec::new();
    // The pieces of the level before, by label, if they were measured.
    let mut before: Option<Vec<Option<(Nucleus, Traits)>>> = None;
    for (i, pair) in levels.windows(2).enumerate() {
        let (above, below) = (&pair[0], &pair[1]);
        let children = below.children(above);
        if children.iter().skip(1).all(|c| c.len() < 2) {
            before = None;
            continue;
        }
        let wholes = before
            .take()
            .unwrap_or_else(|| measure_level(blob, above, grid, scratch));
        let parts = measure_level(blob, below, grid, scratch);
        let several = (0u32..).zip(&children).skip(1).filter(|(_, c)| c.len() > 1);
        for (label, children) in several {
            let of_whole = children.iter().map(|part| parts[*part as usize].clone());
            let own: Vec<_> = of_whole.flatten().collect();
            let Some(whole) = wholes[label as usize].clone() else {
                continue;
            };
            branches.push(Branch {
                traits: measure_division(&whole, &own, above.threshold, grid.mpp),
                whole: whole.0,
                parts: own.into_iter().map(|(nucleus, _)| nucleus).collect(),
                level: i,
                label,
            });
        }
        before = Some(parts);
    }
    branches
}

/// The pieces that a level's markers flood, with their traits, by label.
fn measure_level(
    blob: &Foreground,
    level: &Level,
    grid: &Grid,
    scratch: &mut Scratch,
) -> Vec<Option<(Nucleus, Traits)>> {
    scratch.runs.clone_from(&level.runs);
    scratch.roots.clone_from(&level.labels);
    label_pixels(blob, grid, scratch);
    let labelled = LabelledPieces::split(blob, grid, &scratch.label);
    let mut by_slot: Vec<_> = measure_nuclei(blob, &labelled, grid.mpp)
        .into_iter()
        .map(Some)
        .collect();
    let take = |slot: &usize| by_slot.get_mut(*slot).and_then(Option::take);
    labelled.slot_of_label.iter().map(take).collect()
}

fn measure_division(
    (whole, own): &(Nucleus, Traits),
    parts: &[(Nucleus, Traits)],
    threshold: f32,
    mpp: [f64; 2],
) -> DivisionTraits {
    let area = |nucleus: &Nucleus| f64::from(nucleus.area_px);
    let all: f64 = parts.iter().map(|(n, _)| area(n)).sum();
    let least = parts
        .iter()
        .map(|(n, _)| area(n))
        .fold(area(whole), f64::min);
    let mut mean = [0.0; TRAITS];
    for (nucleus, traits) in parts {
        for (sum, value) in mean.iter_mut().zip(traits.as_array()) {
            *sum += area(nucleus) / all * value;
        }
    }
    DivisionTraits {
        whole: *own,
        parts: mean,
        ln_smallest_um2: (least * mpp[0] * mpp[1]).ln(),
        smallest_share: least / all,
        count: parts.len() as f64,
        threshold: f64::from(threshold),
    }
}

/// For each marker, by level and label, whether to replace it by the markers of the next threshold:
/// yes where that, with all divisions further down, raises the expected overlap with true nuclei.
///
/// `gains`: (level, label, expected gain) of each marker with two or more children. Other markers
/// gain nothing by themselves.
pub(super) fn choose_divisions(
    levels: &[Level],
    gains: impl Iterator<Item = (usize, u32, f64)>,
) -> Vec<Vec<bool>> {
    let zeros = |level: &Level| vec![0.0; level.parents.len() + 1];
    let mut gain: Vec<Vec<f64>> = levels.iter().map(zeros).collect();
    gains.for_each(|(level, label, g)| gain[level][label as usize] = g);
    let mut divided: Vec<Vec<bool>> = levels
        .iter()
        .map(|l| vec![false; l.parents.len() + 1])
        .collect();
    for i in (1..levels.len()).rev() {
        let [above, below] = &mut gain[i - 1..=i] else {
            continue;
        };
        for (label, parent) in (1usize..).zip(&levels[i].parents) {
            above[*parent as usize] += below[label];
        }
        for (total, divided) in above.iter_mut().zip(&mut divided[i - 1]) {
            *divided = *total > 0.0;
            *total = total.max(0.0);
        }
    }
    divided
}

/// The runs, with new labels from 1, of the markers that are not replaced themselves but whose
/// ancestors all are; in raster order.
pub(super) fn collect_markers(levels: &[Level], divided: &[Vec<bool>]) -> Vec<(Run, u32)> {
    let mut chosen = Vec::new();
    let mut labels = 0;
    // By label of the level before: whether the marker and all its ancestors are replaced.
    let mut replaced: Vec<bool> = Vec::new();
    for (i, level) in levels.iter().enumerate() {
        let is_reached = |label: u32| i == 0 || replaced[level.parent(label) as usize];
        let reached: Vec<bool> = (0..=level.parents.len() as u32)
            .map(|label| label > 0 && is_reached(label))
            .collect();
        let mut new_labels = vec![0; reached.len()];
        for (label, reached) in reached.iter().enumerate() {
            if *reached && !divided[i][label] {
                labels += 1;
                new_labels[label] = labels;
            }
        }
        let runs = level.runs.iter().zip(&level.labels);
        let kept = runs.map(|(run, label)| (*run, new_labels[*label as usize]));
        chosen.extend(kept.filter(|(_, label)| *label > 0));
        replaced = reached
            .iter()
            .zip(&divided[i])
            .map(|(reached, divided)| *reached && *divided)
            .collect();
    }
    chosen.sort_by_key(|(run, _)| (run.y, run.x0));
    chosen
}
