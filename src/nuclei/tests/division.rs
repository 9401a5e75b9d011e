//! Dividing blobs: the choice against trying every choice, the traits against their definitions,
//! and invariants.

use super::*;
use crate::nuclei::division::{Level, choose_divisions, collect_markers, find_levels};
use crate::nuclei::energy::ridge_energy;
use crate::nuclei::plane::{Grid, Scratch};

const THRESHOLDS: [f32; 4] = [0.8, 0.5, 0.3, 0.15];

/// Constants with a rule that divides where h and v fit the parts better than the whole.
fn with_rule(bias: f64, parts: f64) -> PostprocParams {
    let mut weights = [0.0; DIVISION_TRAITS];
    weights[TRAITS + 7] = parts;
    weights[7] = -parts;
    PostprocParams {
        division: Some(Division {
            thresholds: THRESHOLDS.to_vec(),
            bias,
            weights,
        }),
        ..constants(EnergyRule::Eigen)
    }
}

fn blobs(seed: u64) -> Vec<Foreground> {
    components(&foreground(seed, 160, 120, (5, -7)))
}

#[test]
fn a_rule_that_never_divides_is_the_highest_threshold() {
    let never = with_rule(-1e3, 0.0);
    let highest = PostprocParams {
        energy_threshold: THRESHOLDS[0],
        division: None,
        ..never.clone()
    };
    for blob in blobs(3) {
        assert_eq!(segment(&blob, &never, MPP), segment(&blob, &highest, MPP));
    }
}

#[test]
fn the_rule_decides_between_the_thresholds() {
    let count = |params: &PostprocParams| -> usize {
        let of = |blob: &Foreground| segment(blob, params, MPP).len();
        (0..4)
            .map(|seed| blobs(seed).iter().map(of).sum::<usize>())
            .sum()
    };
    let (never, by_fit, always) = (
        count(&with_rule(-1e3, 0.0)),
        count(&with_rule(0.0, 1.0)),
        count(&with_rule(1e3, 0.0)),
    );
    assert!(
        never < by_fit && by_fit < always,
        "{never} {by_fit} {always}"
    );
}

#[test]
fn nuclei_divide_their_blob_wherever_it_lies() {
    let params = with_rule(0.0, 1.0);
    for blob in blobs(4) {
        let here = segment(&blob, &params, MPP);
        let inside: Vec<_> = here.iter().flat_map(nucleus_pixels).collect();
        let mut once = inside.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), inside.len(), "a pixel in two nuclei");
        assert!(here.is_empty() || once == pixels(&blob), "no pixel is lost");
        let mut moved = blob.clone();
        for run in &mut moved.runs {
            (run.y, run.x0, run.x1) = (run.y + 333, run.x0 - 4097, run.x1 - 4097);
        }
        let mut there = segment(&moved, &params, MPP);
        for nucleus in &mut there {
            (nucleus.bbox.x, nucleus.bbox.y) = (nucleus.bbox.x + 4097, nucleus.bbox.y - 333);
        }
        assert_eq!(there, here);
    }
}

#[test]
fn parts_divide_their_piece_and_have_the_traits_that_are_defined() {
    let params = constants(EnergyRule::Eigen);
    let mut seen = 0;
    for blob in (0..20).flat_map(blobs) {
        for branch in divisions(&blob, &params, &THRESHOLDS, MPP) {
            seen += 1;
            assert!(branch.parts.len() > 1);
            let n = branch.parts.len() as f64;
            let areas: Vec<f64> = branch.parts.iter().map(|p| f64::from(p.area_px)).collect();
            let (all, least) = (
                areas.iter().sum::<f64>(),
                areas.iter().copied().fold(1e9, f64::min),
            );
            let np = |n: &Nucleus| f64::from(n.np_sum) / f64::from(n.area_px) / 255.0;
            let traits = branch.traits.as_array();
            let near = |i: usize, truth: f64| {
                assert!(
                    (traits[i] - truth).abs() < 1e-9,
                    "trait {i}: {} {truth}",
                    traits[i]
                );
            };
            near(0, np(&branch.whole));
            near(2, (f64::from(branch.whole.area_px) / 16.0).ln());
            let parts = branch.parts.iter().zip(&areas);
            near(TRAITS, parts.map(|(p, a)| np(p) * a / all).sum());
            near(
                TRAITS + 2,
                areas.iter().map(|a| (a / 16.0).ln() * a / all).sum(),
            );
            near(2 * TRAITS, (least / 16.0).ln());
            near(2 * TRAITS + 1, least / all);
            near(2 * TRAITS + 2, n);
            assert!(
                THRESHOLDS[..3]
                    .iter()
                    .any(|t| f64::from(*t) == traits[2 * TRAITS + 3])
            );
        }
    }
    assert!(seen > 50, "{seen} branches");
}

#[test]
fn markers_of_a_threshold_lie_in_those_of_every_higher_one() {
    let params = constants(EnergyRule::Eigen);
    let mut several = 0;
    for blob in (0..8).flat_map(blobs) {
        let mut scratch = Scratch::default();
        scratch.kernel.set_side(params.sobel_px);
        let grid = Grid::new(blob.bounds(), 4, MPP);
        ridge_energy(&blob, &params, &grid, &mut scratch);
        let levels = find_levels(&blob, &params, &THRESHOLDS, &grid, &mut scratch);
        for pair in levels.windows(2) {
            several += usize::from(pair[1].parents.len() > pair[0].parents.len());
            for (run, label) in pair[1].runs.iter().zip(&pair[1].labels) {
                let parent = pair[1].parents[*label as usize - 1];
                let above = pair[0].runs.iter().zip(&pair[0].labels);
                let around =
                    above.filter(|(a, _)| a.y == run.y && a.x0 <= run.x0 && run.x1 <= a.x1);
                let labels: Vec<u32> = around.map(|(_, label)| *label).collect();
                assert_eq!(labels, [parent]);
            }
        }
    }
    assert!(several > 9, "{several} levels with more markers");
}

/// Markers of random trees, one pixel per marker.
fn tree(dice: &mut Dice) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for threshold in &THRESHOLDS[..1 + dice.below(4) as usize] {
        let above = levels.last().map(|l| l.parents.len() as u32);
        let count = 1 + dice.below(4);
        levels.push(Level {
            threshold: *threshold,
            runs: (0..count as i32)
                .map(|x| Run {
                    y: levels.len() as i32,
                    x0: 2 * x,
                    x1: 2 * x + 1,
                })
                .collect(),
            labels: (1..=count).collect(),
            parents: (0..count)
                .map(|_| above.map_or(0, |n| 1 + dice.below(n)))
                .collect(),
        });
    }
    levels
}

/// The best sum of gains at and below a marker, found by trying both to leave it and to divide it.
fn best(levels: &[Level], gains: &dyn Fn(usize, u32) -> f64, level: usize, label: u32) -> f64 {
    let children: Vec<u32> = match levels.get(level + 1) {
        Some(below) => (1..)
            .zip(&below.parents)
            .filter(|(_, p)| **p == label)
            .map(|(l, _)| l)
            .collect(),
        None => Vec::new(),
    };
    if children.is_empty() {
        return 0.0;
    }
    let own = if children.len() > 1 {
        gains(level, label)
    } else {
        0.0
    };
    let further: f64 = children
        .iter()
        .map(|c| best(levels, gains, level + 1, *c))
        .sum();
    (own + further).max(0.0)
}

#[test]
fn the_choice_is_the_best_of_all() {
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let levels = tree(&mut dice);
        let table: Vec<Vec<f64>> = levels
            .iter()
            .map(|_| (0..5).map(|_| f64::from(dice.unit())).collect())
            .collect();
        let gain = |level: usize, label: u32| table[level][label as usize];
        let mut several = Vec::new();
        for (i, pair) in levels.windows(2).enumerate() {
            for label in 1..=pair[0].parents.len() as u32 {
                let n = pair[1].parents.iter().filter(|p| **p == label).count();
                if n > 1 {
                    several.push((i, label, gain(i, label)));
                }
            }
        }
        let divided = choose_divisions(&levels, several.iter().copied());
        let reached = |mut level: usize, mut label: u32| {
            // Every marker on the way up is divided.
            while level > 0 {
                (label, level) = (levels[level].parents[label as usize - 1], level - 1);
                if !divided[level][label as usize] {
                    return false;
                }
            }
            true
        };
        let found: f64 = several
            .iter()
            .filter(|(i, label, _)| divided[*i][*label as usize] && reached(*i, *label))
            .map(|(_, _, g)| g)
            .sum();
        let most: f64 = (1..=levels[0].parents.len() as u32)
            .map(|l| best(&levels, &gain, 0, l))
            .sum();
        assert!((found - most).abs() < 1e-9, "seed {seed}: {found} {most}");
        // Exactly one marker stays on each way from a root to a leaf.
        let kept = collect_markers(&levels, &divided);
        for (i, level) in levels.iter().enumerate() {
            for (run, label) in level.runs.iter().zip(&level.labels) {
                let stays = reached(i, *label) && !divided[i][*label as usize];
                assert_eq!(stays, kept.iter().any(|(r, _)| r == run), "seed {seed}");
            }
        }
        assert!(kept.is_sorted_by_key(|(run, _)| (run.y, run.x0)));
    }
}
