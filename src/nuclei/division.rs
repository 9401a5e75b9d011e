//! Which markers of a blob become nuclei, where a lower energy threshold would find more of them.
//!
//! In: a blob's energy and a [`Division`]. Out: markers as [`find_markers`] leaves them, each from the threshold at
//! which the pieces around it look most like nuclei. Every marker of a lower threshold lies in one of each higher one
//! (holes, opening and least area keep that), so the thresholds make a tree; a piece is divided where that promises
//! more true nuclei than leaving it whole. A pure function of the blob. Never moves a border itself.

use serde::{Deserialize, Serialize};

use super::Nucleus;
use super::confidence::{TRAITS, Traits, line, traits};
use super::foreground::{Foreground, Run};
use super::gather::{Piece, gather, slots};
use super::markers::find_markers;
use super::params::PostprocParams;
use super::plane::{Grid, Scratch};
use super::segment::{label_pixels, pieces};

/// Length of [`DivisionTraits`].
pub const DIVISION_TRAITS: usize = 2 * TRAITS + 4;

/// What is measured of a piece and its parts, in this order: [`Traits`] of the piece; their mean over the parts, weighted
/// by area; ln of the smallest part's area in µm²; its share of all parts' area; how many parts; the energy threshold at
/// which the piece is still whole.
pub type DivisionTraits = [f64; DIVISION_TRAITS];

/// A linear rule: expected gain = `bias` + Σ `weights` · traits, fitted on labelled images by `model tune`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Division {
    /// Thresholds of the energy, falling, in place of `energy_threshold`.
    pub thresholds: Vec<f32>,
    pub bias: f64,
    pub weights: [f64; DIVISION_TRAITS],
}

impl Division {
    /// What dividing is expected to add: overlaps of matched nuclei, less a quarter for each part more.
    fn expected_gain(&self, traits: &DivisionTraits) -> f64 {
        line(self.bias, &self.weights, traits)
    }
}

/// A piece of a blob, and the parts into which the next threshold would divide it.
pub struct Branch {
    pub whole: Nucleus,
    pub parts: Vec<Nucleus>,
    pub traits: DivisionTraits,
    level: usize,
    label: u32,
}

#[cfg(test)]
impl Branch {
    pub fn of(whole: Nucleus, parts: Vec<Nucleus>, traits: DivisionTraits) -> Branch {
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
    pub runs: Vec<Run>,
    /// From 1, of each run.
    pub labels: Vec<u32>,
    /// Of each marker, which one of the level before it lies in.
    pub parents: Vec<u32>,
}

impl Level {
    fn parent(&self, label: u32) -> u32 {
        self.parents[label as usize - 1]
    }

    /// The markers of this level in each of those of the level before, by label; entry 0 is none.
    fn children(&self, above: &Level) -> Vec<Vec<u32>> {
        let mut children = vec![Vec::new(); above.parents.len() + 1];
        for (label, &parent) in (1..).zip(&self.parents) {
            children[parent as usize].push(label);
        }
        children
    }
}

/// Every place where a blob may be divided; `scratch` holds its energy.
pub(super) fn branches(
    blob: &Foreground,
    params: &PostprocParams,
    thresholds: &[f32],
    (grid, mpp): (&Grid, [f64; 2]),
    scratch: &mut Scratch,
) -> Vec<Branch> {
    let levels = levels(blob, params, thresholds, (grid, mpp), scratch);
    branches_of(blob, &levels, (grid, mpp), scratch)
}

/// As [`find_markers`], from the thresholds of `rule`.
pub(super) fn choose_markers(
    blob: &Foreground,
    params: &PostprocParams,
    rule: &Division,
    (grid, mpp): (&Grid, [f64; 2]),
    scratch: &mut Scratch,
) -> u32 {
    let levels = levels(blob, params, &rule.thresholds, (grid, mpp), scratch);
    let gains = branches_of(blob, &levels, (grid, mpp), scratch)
        .into_iter()
        .map(|b| (b.level, b.label, rule.expected_gain(&b.traits)));
    let chosen = chosen(&levels, &divided(&levels, gains));
    scratch.runs.clear();
    scratch.roots.clear();
    scratch.runs.extend(chosen.iter().map(|(run, _)| *run));
    scratch.roots.extend(chosen.iter().map(|(_, label)| *label));
    chosen.iter().map(|(_, label)| *label).max().unwrap_or(0)
}

/// The markers of each threshold, until one finds none.
pub(super) fn levels(
    blob: &Foreground,
    params: &PostprocParams,
    thresholds: &[f32],
    (grid, mpp): (&Grid, [f64; 2]),
    scratch: &mut Scratch,
) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::with_capacity(thresholds.len());
    for &threshold in thresholds {
        let count = find_markers(blob, params, threshold, (grid, mpp), scratch);
        if count == 0 {
            break;
        }
        let (runs, labels) = (scratch.runs.clone(), scratch.roots.clone());
        let mut parents = vec![0; count as usize];
        if let Some(above) = levels.last() {
            for (run, label) in runs.iter().zip(&labels) {
                parents[*label as usize - 1] = label_at(above, run.y, run.x0);
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

/// The label of the marker that a pixel lies in, 0 for none.
fn label_at(level: &Level, y: i32, x: i32) -> u32 {
    let after = level.runs.partition_point(|run| (run.y, run.x0) <= (y, x));
    match after
        .checked_sub(1)
        .map(|i| (level.runs[i], level.labels[i]))
    {
        Some((run, label)) if run.y == y && x < run.x1 => label,
        _ => 0,
    }
}

fn branches_of(
    blob: &Foreground,
    levels: &[Level],
    (grid, mpp): (&Grid, [f64; 2]),
    scratch: &mut Scratch,
) -> Vec<Branch> {
    let mut branches = Vec::new();
    // Of the level before, if it was described: its pieces, by label.
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
            .unwrap_or_else(|| described(blob, above, (grid, mpp), scratch));
        let parts = described(blob, below, (grid, mpp), scratch);
        let several = (0u32..).zip(&children).skip(1).filter(|(_, c)| c.len() > 1);
        for (label, children) in several {
            let of_whole = children.iter().map(|part| parts[*part as usize].clone());
            let own: Vec<_> = of_whole.flatten().collect();
            let Some(whole) = wholes[label as usize].clone() else {
                continue;
            };
            branches.push(Branch {
                traits: division_traits(&whole, &own, above.threshold, mpp),
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
fn described(
    blob: &Foreground,
    level: &Level,
    (grid, mpp): (&Grid, [f64; 2]),
    scratch: &mut Scratch,
) -> Vec<Option<(Nucleus, Traits)>> {
    scratch.runs.clone_from(&level.runs);
    scratch.roots.clone_from(&level.labels);
    label_pixels(blob, grid, scratch);
    let pieces: Vec<Piece> = pieces(blob, grid, &scratch.label);
    let nuclei = gather(blob, &pieces);
    let traits = traits(blob, &pieces, &nuclei, mpp);
    let mut by_slot: Vec<_> = nuclei.into_iter().zip(traits).map(Some).collect();
    let of_label = |slot: &usize| by_slot.get_mut(*slot).and_then(Option::take);
    slots(&pieces).iter().map(of_label).collect()
}

fn division_traits(
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
    let mut found = [0.0; DIVISION_TRAITS];
    found[..TRAITS].copy_from_slice(own);
    for (nucleus, traits) in parts {
        for (sum, trait_) in found[TRAITS..2 * TRAITS].iter_mut().zip(traits) {
            *sum += area(nucleus) / all * trait_;
        }
    }
    found[2 * TRAITS..].copy_from_slice(&[
        (least * mpp[0] * mpp[1]).ln(),
        least / all,
        parts.len() as f64,
        f64::from(threshold),
    ]);
    found
}

/// Of each level's markers, by label, whether those of the next level take their place: where the gains of dividing, here and
/// further down, are more than nothing. `gains`: (level, label, expected gain) of the markers that fall into several.
pub(super) fn divided(
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

/// The runs of the markers that stay, in raster order, with labels from 1.
pub(super) fn chosen(levels: &[Level], divided: &[Vec<bool>]) -> Vec<(Run, u32)> {
    let mut chosen = Vec::new();
    let mut labels = 0;
    let mut reached: Vec<bool> = Vec::new();
    for (i, level) in levels.iter().enumerate() {
        let of = |label: u32| i == 0 || reached[level.parent(label) as usize];
        let here: Vec<bool> = (0..=level.parents.len() as u32)
            .map(|label| label > 0 && of(label))
            .collect();
        let mut new_labels = vec![0; here.len()];
        for (label, reached) in here.iter().enumerate() {
            if *reached && !divided[i][label] {
                labels += 1;
                new_labels[label] = labels;
            }
        }
        let runs = level.runs.iter().zip(&level.labels);
        let kept = runs.map(|(run, label)| (*run, new_labels[*label as usize]));
        chosen.extend(kept.filter(|(_, label)| *label > 0));
        reached = here
            .iter()
            .zip(&divided[i])
            .map(|(h, d)| *h && *d)
            .collect();
    }
    chosen.sort_by_key(|(run, _)| (run.y, run.x0));
    chosen
}
