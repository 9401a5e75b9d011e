//! `model tune`: the parameters of a model that training by gradients does not fit.
//!
//! In: a model and labelled images. Out: [`Tuned`]. On held-out images: the constants of
//! post-processing with the best PQ, and the temperature at which the probabilities of the true
//! types are largest. On the other images: the rules that divide blobs and drop unsure nuclei.
//! Never writes a model.

mod confidence;
mod division;
mod least_squares;
mod training_images;

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::eval::{held_out, segmentation};
use crate::geometry::Rect;
use crate::labels::{LabelledImage, LoadedSet, Truth};
use crate::model::Model;
use crate::nuclei::{EnergyRule, Foreground, Nucleus, PostprocParams, Run};
use crate::pipeline::{PipelineError, image};
use crate::plan::PatchGrid;
use crate::prediction::{PredictionMap, QuantisedMap};

pub use confidence::LimitScores;

/// Most rounds over all constants; the search ends earlier when a round changes nothing.
const MAX_ROUNDS: usize = 3;
/// Range of the temperatures tried, as natural logarithms.
const LN_TEMPERATURE_RANGE: [f64; 2] = [-1.5, 1.5];

/// The fitted parameters, and the scores before and after.
#[derive(Debug, Clone)]
pub struct Tuned {
    pub postproc: PostprocParams,
    /// Mean PQ of each set with the model's own constants and with the new ones.
    pub pq: BTreeMap<String, [f64; 2]>,
    /// Divisor of the logits of the types; `None` if no held-out nucleus has a type.
    pub temperature: Option<f64>,
    /// Scores on training images at each limit of the expected overlap; empty if nuclei are few.
    pub limits: Vec<LimitScores>,
    /// Mean negative logarithm of the true type's probability before and after.
    pub nll: [f64; 2],
}

/// One labelled image with the network's output.
struct Predicted<'a> {
    set: &'a str,
    image: &'a LabelledImage,
    map: PredictionMap,
    quantised: QuantisedMap,
    grid: PatchGrid,
    /// µm/px (x, y).
    mpp: [f64; 2],
}

/// Fits constants (unless `keep_constants`) and temperature on the held-out images of `sets`, and
/// the rules that divide blobs and drop nuclei on the others.
pub fn tune(
    model: &Model,
    sets: &[LoadedSet],
    keep_constants: bool,
) -> Result<Tuned, PipelineError> {
    let images: Vec<Predicted> = sets
        .iter()
        .flat_map(|set| {
            let held_out = set.images.iter().filter(|i| i.held_out);
            held_out.map(move |image| (set.name.as_str(), image))
        })
        .map(|(set, image)| predict(model, set, image))
        .collect::<Result<_, _>>()?;
    let own = &model.spec.postproc;
    let before = score_pq(&images, own);
    // The constants come first, without the two rules: the division depends on them, and what is
    // dropped depends on the division.
    let without_rules = PostprocParams {
        division: None,
        confidence: None,
        ..own.clone()
    };
    let mut postproc = match keep_constants {
        true => without_rules,
        false => search_constants(&images, &without_rules),
    };
    let training_sets = training_images::predict_training_images(model, sets, &postproc)?;
    postproc.division = division::fit_division(&training_sets, &postproc);
    let fitted = confidence::fit_confidence(&training_sets, &postproc);
    let limits = match fitted {
        Some(fitted) => {
            postproc.confidence = Some(fitted.confidence);
            fitted.limits
        }
        None => Vec::new(),
    };
    let after = score_pq(&images, &postproc);
    let (temperature, nll) = fit_temperature(&images, &postproc);
    let pq = before
        .into_iter()
        .map(|(set, b)| (set.clone(), [b, after[&set]]))
        .collect();
    Ok(Tuned {
        postproc,
        pq,
        temperature,
        limits,
        nll,
    })
}

/// The temperature, and the mean negative logarithm of the true type's probability before and
/// after; `None` if no nucleus has a known type.
fn fit_temperature(images: &[Predicted], params: &PostprocParams) -> (Option<f64>, [f64; 2]) {
    let typed = find_typed_nuclei(images, params);
    if typed.is_empty() {
        return (None, [0.0; 2]);
    }
    let nll = |t: f64| mean_nll(images, &typed, t);
    let best = minimise(LN_TEMPERATURE_RANGE, |ln_t| nll(ln_t.exp())).exp();
    (Some(best), [1.0, best].map(nll))
}

fn predict<'a>(
    model: &Model,
    set: &'a str,
    labelled: &'a LabelledImage,
) -> Result<Predicted<'a>, PipelineError> {
    let (predicted, grid, mpp) = held_out::run_model(model, labelled, true)?;
    let map = predicted
        .map
        .ok_or_else(|| PipelineError::Panic("no map".into()))?;
    Ok(Predicted {
        set,
        image: labelled,
        quantised: map.quantised(),
        map,
        grid,
        mpp,
    })
}

impl Predicted<'_> {
    fn foreground(&self, params: &PostprocParams) -> Foreground {
        let whole = Rect::new(0, 0, self.map.width as i32, self.map.height as i32);
        let threshold = params.np_threshold;
        Foreground::from_patch(
            &self.quantised,
            &self.image.rgb,
            0,
            (0, 0),
            whole,
            threshold,
        )
    }

    fn nuclei(&self, params: &PostprocParams) -> Vec<Nucleus> {
        crate::nuclei::segment_foreground(&self.foreground(params), params, self.mpp)
    }
}

/// Mean PQ per set, over the images whose instances are known.
fn score_pq(images: &[Predicted], params: &PostprocParams) -> BTreeMap<String, f64> {
    let scores: Vec<(&str, f64)> = images
        .par_iter()
        .filter_map(|p| match &p.image.truth {
            Truth::Instances { ids, .. } => {
                let pred = image::instance_map(&p.nuclei(params), &p.grid);
                Some((p.set, segmentation::score_maps(ids, &pred).pq))
            }
            Truth::Dots(_) | Truth::Unknown => None,
        })
        .collect();
    mean_by_set(&scores)
}

/// Mean of the values of each set.
fn mean_by_set(values: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (set, value) in values {
        let sum = sums.entry(set.to_string()).or_default();
        *sum = (sum.0 + value, sum.1 + 1.0);
    }
    sums.into_iter().map(|(k, (s, n))| (k, s / n)).collect()
}

/// Coordinate descent: sets one constant at a time to the best of its candidates, until nothing
/// gets better. Every set has the same weight.
fn search_constants(images: &[Predicted], start: &PostprocParams) -> PostprocParams {
    let mean_pq = |params: &PostprocParams| {
        let pq = score_pq(images, params);
        pq.values().sum::<f64>() / pq.len().max(1) as f64
    };
    let mut best = start.clone();
    let mut best_pq = mean_pq(&best);
    for _ in 0..MAX_ROUNDS {
        let mut changed = false;
        for constant in 0..CONSTANTS {
            for candidate in candidates(&best, constant) {
                let pq = mean_pq(&candidate);
                if pq > best_pq {
                    tracing::info!("PQ {pq:.4} with {candidate:?}");
                    (best, best_pq, changed) = (candidate, pq, true);
                }
            }
        }
        if !changed {
            break;
        }
    }
    best
}

/// Number of constants that [`candidates`] varies.
const CONSTANTS: usize = 7;

/// `from` with each value that is tried for one constant.
fn candidates(from: &PostprocParams, constant: usize) -> Vec<PostprocParams> {
    match constant {
        0 => vary(from, &[EnergyRule::Eigen, EnergyRule::Axes], |p, v| {
            p.energy = v
        }),
        1 => vary(from, &[5, 7, 9, 11, 13], |p, v| p.sobel_px = v),
        2 => vary(from, &[0, 3, 5, 7], |p, v| p.open_px = v),
        3 => vary(from, &[-0.4, -0.3, -0.2, -0.15, -0.1, -0.05], |p, v| {
            p.hv_lo = v
        }),
        4 => vary(from, &[0.0, 0.05, 0.1], |p, v| p.hv_hi = v),
        5 => vary(from, &[0.2, 0.3, 0.4, 0.5, 0.6], |p, v| {
            p.energy_threshold = v
        }),
        _ => {
            let mut all = vary(from, &[0.4, 0.45, 0.5, 0.55], |p, v| p.np_threshold = v);
            let areas_um2 = [2.0, 3.0, 3.75, 5.0, 7.5];
            all.extend(vary(from, &areas_um2, |p, v| p.min_area_um2 = v));
            all
        }
    }
}

/// `from` with each of `values` in the place that `set` writes.
fn vary<T: Copy>(
    from: &PostprocParams,
    values: &[T],
    set: fn(&mut PostprocParams, T),
) -> Vec<PostprocParams> {
    let with = |&value: &T| {
        let mut params = from.clone();
        set(&mut params, value);
        params
    };
    values.iter().map(with).collect()
}

/// A predicted nucleus whose true type is known.
struct TypedNucleus {
    /// Index of its image.
    image: usize,
    /// Indices of its pixels in the map.
    pixels: Vec<usize>,
    type_id: usize,
}

/// Predicted nuclei with most of their pixels in one typed true nucleus, or with exactly one dot.
fn find_typed_nuclei(images: &[Predicted], params: &PostprocParams) -> Vec<TypedNucleus> {
    let find = |(index, p): (usize, &Predicted)| {
        let found = p.nuclei(params).into_iter().filter_map(|nucleus| {
            let pixels = list_pixels(&nucleus, p.map.width);
            let type_id = true_type(p, &nucleus, &pixels)?;
            (type_id > 0 && type_id < p.map.types).then_some(TypedNucleus {
                image: index,
                pixels,
                type_id,
            })
        });
        found.collect::<Vec<_>>()
    };
    images.par_iter().enumerate().flat_map_iter(find).collect()
}

/// Indices of a nucleus's pixels in a map `width` px wide.
fn list_pixels(nucleus: &Nucleus, width: usize) -> Vec<usize> {
    let row = |run: Run| {
        let start = run.y as usize * width;
        start + run.x0 as usize..start + run.x1 as usize
    };
    nucleus.runs().flat_map(row).collect()
}

/// How many of `pixels` have each true id; 0: background.
fn count_ids(ids: &[u32], pixels: &[usize]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for &i in pixels {
        *counts.entry(ids[i]).or_default() += 1;
    }
    counts
}

/// The true type of a predicted nucleus, if the labels tell it; 0: unknown.
fn true_type(p: &Predicted, nucleus: &Nucleus, pixels: &[usize]) -> Option<usize> {
    match &p.image.truth {
        Truth::Instances { ids, types } => {
            let counts = count_ids(ids, pixels);
            let (&id, &most) = counts.iter().max_by_key(|(_, n)| **n)?;
            (id > 0 && 2 * most > pixels.len()).then(|| usize::from(types[id as usize]))
        }
        Truth::Dots(dots) => {
            let mut inside = dots
                .iter()
                .filter(|d| nucleus.contains(d.x_px.floor() as i32, d.y_px.floor() as i32));
            let only = inside.next()?;
            inside.next().is_none().then(|| usize::from(only.type_id))
        }
        Truth::Unknown => None,
    }
}

/// Mean of -ln p(true type) over the nuclei of each set, averaged over the sets. p is the mean over
/// a nucleus's pixels of the probabilities at temperature `t`.
fn mean_nll(images: &[Predicted], typed: &[TypedNucleus], t: f64) -> f64 {
    let losses: Vec<(&str, f64)> = typed
        .par_iter()
        .map(|nucleus| {
            let p = &images[nucleus.image];
            let mut sum = 0.0;
            for &i in &nucleus.pixels {
                let probabilities = &p.map.tp[i * p.map.types..(i + 1) * p.map.types];
                let powers = || probabilities.iter().map(|&q| f64::from(q).powf(1.0 / t));
                let all: f64 = powers().sum();
                sum += powers().nth(nucleus.type_id).unwrap_or(0.0) / all.max(f64::MIN_POSITIVE);
            }
            let mean = sum / nucleus.pixels.len().max(1) as f64;
            (p.set, -mean.max(1e-12).ln())
        })
        .collect();
    let means = mean_by_set(&losses);
    means.values().sum::<f64>() / means.len().max(1) as f64
}

/// The place between `lo` and `hi` where `f`, which has one minimum there, is least, by
/// golden-section search.
fn minimise([mut lo, mut hi]: [f64; 2], f: impl Fn(f64) -> f64) -> f64 {
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (hi - ratio * (hi - lo), lo + ratio * (hi - lo));
    let (mut fa, mut fb) = (f(a), f(b));
    while hi - lo > 0.01 {
        if fa < fb {
            (hi, b, fb) = (b, a, fa);
            a = hi - ratio * (hi - lo);
            fa = f(a);
        } else {
            (lo, a, fa) = (a, b, fb);
            b = lo + ratio * (hi - lo);
            fb = f(b);
        }
    }
    (lo + hi) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_section_finds_the_minimum_of_a_parabola() {
        let found = minimise([-1.5, 1.5], |x| (x - 0.7).powi(2));
        assert!((found - 0.7).abs() < 0.01, "{found}");
    }

    #[test]
    fn a_candidate_changes_one_constant_only() {
        let from = PostprocParams::default();
        let all: Vec<_> = (0..CONSTANTS).flat_map(|c| candidates(&from, c)).collect();
        let text = |p: &PostprocParams| toml::to_string(p).unwrap();
        let own = text(&from);
        for candidate in &all {
            let other = text(candidate);
            let changed = own.lines().zip(other.lines()).filter(|(a, b)| a != b);
            assert!(changed.count() <= 1, "{other}");
        }
        assert!(all.iter().any(|p| p.energy == EnergyRule::Axes));
    }
}
