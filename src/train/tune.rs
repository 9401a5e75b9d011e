//! What no gradient reaches: the constants of post-processing, where blobs are divided, which nuclei to keep, and how sure
//! the type probabilities may be.
//!
//! In: a model and labelled images. Out: the constants with the best PQ and the temperature with which the probabilities
//! of the types are most likely, both on images that its training never saw; and from the others the rules by which blobs
//! are divided and unsure nuclei dropped. Never changes a model by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::answers::answers;
use super::confidence::{self, Kept};
use super::data::{LabelledImage, LoadedSet, Truth};
use super::division;
use crate::eval::segmentation;
use crate::geometry::Rect;
use crate::model::Model;
use crate::nuclei::{EnergyRule, Foreground, Nucleus, PostprocParams, Run};
use crate::pipeline::{PipelineError, grid_of, image};
use crate::plan::PatchGrid;
use crate::prediction::PredictionMap;
use crate::slide::SlideReader;
use crate::slide::blocks::ProcImage;
use crate::slide::frames::Frames;
use crate::slide::plain::PlainReader;

/// Rounds over all constants; the search ends earlier when a round changes nothing.
const ROUNDS: usize = 3;
/// Temperatures that are looked at, as natural logarithms.
const LN_TEMPERATURE: [f64; 2] = [-1.5, 1.5];

/// The outcome, with what it was worth.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Tuned {
    pub postproc: PostprocParams,
    /// Mean PQ of each set with the model's own constants and with the new ones.
    pub pq: BTreeMap<String, [f64; 2]>,
    /// Divides the logits of the types; `None` where no held-out nucleus has a type.
    pub temperature: Option<f64>,
    /// What each limit of the expected overlap does to the images that taught the model; empty where too few nuclei are
    /// known.
    pub kept: Vec<Kept>,
    /// Mean negative logarithm of the true type's probability before and after.
    pub nll: [f64; 2],
}

/// One labelled image as the network sees it.
pub(super) struct Predicted<'a> {
    set: &'a str,
    image: &'a LabelledImage,
    pub map: PredictionMap,
    grid: PatchGrid,
    pub mpp: [f64; 2],
}

/// Fits constants (unless they shall be `kept`) and temperature on the held-out images of `sets`, and on the others
/// where to divide blobs and which nuclei to keep.
pub fn tune(model: &Model, sets: &[LoadedSet], kept: bool) -> Result<Tuned, PipelineError> {
    let images: Vec<Predicted> = sets
        .iter()
        .flat_map(|set| {
            let held_out = set.images.iter().filter(|i| i.held_out);
            held_out.map(move |image| (set.name.as_str(), image))
        })
        .map(|(set, image)| predict(model, set, image))
        .collect::<Result<_, _>>()?;
    let before = pq_by_set(&images, &model.spec.postproc);
    let own = &model.spec.postproc;
    // One threshold and all nuclei first: how blobs are divided depends on these, what is dropped on how they are divided.
    let all = PostprocParams {
        division: None,
        confidence: None,
        ..own.clone()
    };
    let mut postproc = if kept { all } else { search(&images, &all) };
    let taught = answers(model, sets, &postproc)?;
    postproc.division = division::fit(&taught, &postproc);
    let fitted = confidence::fit(&taught, &postproc);
    let kept = match fitted {
        Some(fitted) => {
            postproc.confidence = Some(fitted.confidence);
            fitted.kept
        }
        None => Vec::new(),
    };
    let after = pq_by_set(&images, &postproc);
    let typed = typed_nuclei(&images, &postproc);
    let (temperature, nll) = match typed.is_empty() {
        true => (None, [0.0; 2]),
        false => {
            let best = least(LN_TEMPERATURE, |ln_t| mean_nll(&images, &typed, ln_t.exp())).exp();
            let nll = [1.0, best].map(|t| mean_nll(&images, &typed, t));
            (Some(best), nll)
        }
    };
    let pq = before
        .into_iter()
        .map(|(set, b)| (set.clone(), [b, after[&set]]))
        .collect();
    Ok(Tuned {
        postproc,
        pq,
        temperature,
        kept,
        nll,
    })
}

pub(super) fn predict<'a>(
    model: &Model,
    set: &'a str,
    labelled: &'a LabelledImage,
) -> Result<Predicted<'a>, PipelineError> {
    let reader: Arc<dyn SlideReader> =
        Arc::new(PlainReader::from_rgb(&labelled.name, labelled.rgb.clone()));
    let (frames, level) = Frames::for_slide(reader.info(), [model.spec.mpp; 2], model.spec.mpp)?;
    let pixels = ProcImage::new(reader, frames, level, 64 << 20);
    let options = image::ImageOptions {
        keep_map: true,
        ..image::ImageOptions::default()
    };
    let predicted = image::predict(&pixels, model, options)?;
    let map = predicted
        .map
        .ok_or_else(|| PipelineError::Panic("no map".into()))?;
    Ok(Predicted {
        set,
        image: labelled,
        map,
        grid: grid_of(&model.spec, &frames, None)?,
        mpp: frames.proc_mpp(),
    })
}

impl Predicted<'_> {
    pub fn foreground(&self, params: &PostprocParams) -> Foreground {
        let whole = Rect::new(0, 0, self.map.width as i32, self.map.height as i32);
        let threshold = params.np_threshold;
        Foreground::from_patch(&self.map, &self.image.rgb, (0, 0), whole, threshold)
    }

    fn nuclei(&self, params: &PostprocParams) -> Vec<Nucleus> {
        image::nuclei(&self.foreground(params), params, self.mpp)
    }
}

/// Mean PQ of the images of each set whose instances are known.
fn pq_by_set(images: &[Predicted], params: &PostprocParams) -> BTreeMap<String, f64> {
    let scores: Vec<(&str, f64)> = images
        .par_iter()
        .filter_map(|p| match &p.image.truth {
            Truth::Instances { ids, .. } => {
                let pred = image::instance_map(&p.nuclei(params), &p.grid);
                Some((p.set, segmentation::score(ids, &pred).pq))
            }
            Truth::Dots(_) => None,
        })
        .collect();
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (set, pq) in scores {
        let sum = sums.entry(set.to_string()).or_default();
        *sum = (sum.0 + pq, sum.1 + 1.0);
    }
    sums.into_iter().map(|(k, (s, n))| (k, s / n)).collect()
}

/// Coordinate descent: one constant at a time, the best of its candidates, until nothing gets better. Sets count alike.
fn search(images: &[Predicted], start: &PostprocParams) -> PostprocParams {
    let worth = |params: &PostprocParams| {
        let pq = pq_by_set(images, params);
        pq.values().sum::<f64>() / pq.len().max(1) as f64
    };
    let mut best = start.clone();
    let mut best_pq = worth(&best);
    for _ in 0..ROUNDS {
        let mut changed = false;
        for constant in 0..CONSTANTS {
            for candidate in candidates(&best, constant) {
                let pq = worth(&candidate);
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

const CONSTANTS: usize = 7;

/// `from` with another value of one constant.
fn candidates(from: &PostprocParams, constant: usize) -> Vec<PostprocParams> {
    let with = |change: &dyn Fn(&mut PostprocParams)| {
        let mut params = from.clone();
        change(&mut params);
        params
    };
    let floats = |values: &[f32], set: fn(&mut PostprocParams, f32)| {
        values.iter().map(|&v| with(&|p| set(p, v))).collect()
    };
    match constant {
        0 => [EnergyRule::Eigen, EnergyRule::Axes]
            .into_iter()
            .map(|rule| with(&|p| p.energy = rule))
            .collect(),
        1 => [5, 7, 9, 11, 13]
            .into_iter()
            .map(|px| with(&|p| p.sobel_px = px))
            .collect(),
        2 => [0, 3, 5, 7]
            .into_iter()
            .map(|px| with(&|p| p.open_px = px))
            .collect(),
        3 => floats(&[-0.4, -0.3, -0.2, -0.15, -0.1, -0.05], |p, v| p.hv_lo = v),
        4 => floats(&[0.0, 0.05, 0.1], |p, v| p.hv_hi = v),
        5 => floats(&[0.2, 0.3, 0.4, 0.5, 0.6], |p, v| p.energy_threshold = v),
        _ => {
            let mut all: Vec<_> = floats(&[0.4, 0.45, 0.5, 0.55], |p, v| p.np_threshold = v);
            all.extend::<Vec<_>>(floats(&[2.0, 3.0, 3.75, 5.0, 7.5], |p, v| {
                p.min_area_um2 = v
            }));
            all
        }
    }
}

/// A predicted nucleus whose true type is known: image, its pixels in the map, type id.
struct Typed {
    image: usize,
    pixels: Vec<usize>,
    type_id: usize,
}

/// Nuclei that lie for the most part in one typed true nucleus, or that hold exactly one dot.
fn typed_nuclei(images: &[Predicted], params: &PostprocParams) -> Vec<Typed> {
    let of = |(index, p): (usize, &Predicted)| {
        let found = p.nuclei(params).into_iter().filter_map(|nucleus| {
            let pixels = pixels_of(&nucleus, p.map.width);
            let type_id = true_type(p, &nucleus, &pixels)?;
            (type_id > 0 && type_id < p.map.types).then_some(Typed {
                image: index,
                pixels,
                type_id,
            })
        });
        found.collect::<Vec<_>>()
    };
    images.par_iter().enumerate().flat_map_iter(of).collect()
}

/// Indices of a nucleus's pixels in a map `width` px wide.
pub(super) fn pixels_of(nucleus: &Nucleus, width: usize) -> Vec<usize> {
    let row = |run: Run| {
        let start = run.y as usize * width;
        start + run.x0 as usize..start + run.x1 as usize
    };
    nucleus.runs().flat_map(row).collect()
}

/// How many of `pixels` each true id has, 0 for none.
pub(super) fn shares(ids: &[u32], pixels: &[usize]) -> BTreeMap<u32, usize> {
    let mut shares = BTreeMap::new();
    for &i in pixels {
        *shares.entry(ids[i]).or_default() += 1;
    }
    shares
}

fn true_type(p: &Predicted, nucleus: &Nucleus, pixels: &[usize]) -> Option<usize> {
    match &p.image.truth {
        Truth::Instances { ids, types } => {
            let shares = shares(ids, pixels);
            let (&id, &most) = shares.iter().max_by_key(|(_, n)| **n)?;
            (id > 0 && 2 * most > pixels.len()).then(|| usize::from(types[id as usize]))
        }
        Truth::Dots(dots) => {
            let mut inside = dots
                .iter()
                .filter(|d| nucleus.contains(d.x_px.floor() as i32, d.y_px.floor() as i32));
            let only = inside.next()?;
            inside.next().is_none().then(|| usize::from(only.type_id))
        }
    }
}

/// Mean over the sets of the mean of -ln p(true type), where p is the mean over a nucleus's pixels of the probabilities
/// at temperature `t`.
fn mean_nll(images: &[Predicted], typed: &[Typed], t: f64) -> f64 {
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
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (set, loss) in losses {
        let sum = sums.entry(set).or_default();
        *sum = (sum.0 + loss, sum.1 + 1.0);
    }
    sums.values().map(|(s, n)| s / n).sum::<f64>() / sums.len().max(1) as f64
}

/// Where `f` is least in `range`, by golden section; `f` has one minimum there.
fn least([mut lo, mut hi]: [f64; 2], f: impl Fn(f64) -> f64) -> f64 {
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
        let found = least([-1.5, 1.5], |x| (x - 0.7).powi(2));
        assert!((found - 0.7).abs() < 0.01, "{found}");
    }

    #[test]
    fn each_constant_is_varied_alone() {
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
