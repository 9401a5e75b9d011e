//! Results that exist already: hover_net's JSON, and this program's nuclei.json, without slide or network.
//!
//! In: a file. Out: the [`SlideResult`] that every writer takes, its masks filled from the outlines. Boxes
//! and centroids of the file are not believed: they follow from the masks. Never guesses a µm/px without
//! saying so, and never takes a file that is not whole.

pub mod fill;
pub mod hovernet_json;
pub mod type_info;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::model::TypeInfo;
use crate::model::spec::MAX_TYPES;
use crate::nuclei::{Nucleus, StainSums};
use crate::output::Units;
use crate::result::{
    Coverage, Imported, ImportedLabel, ModelCard, SlideMeta, SlideResult, SlideSource,
};
use crate::slide::frames::Frames;
use hovernet_json::{Entry, Header};

/// µm/px of 40x.
const MPP_AT_40X: f64 = 0.25;

/// A file that cannot be taken. Messages name the file, the place and the cure.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file of nuclei.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not whole, or not JSON of the expected form.
    #[error(
        "{}: breaks at byte {byte}{}: {reason}: the file was cut off or edited: copy it again, or run the slide again",
        path.display(),
        nucleus.as_ref().map(|key| format!(" (nucleus {key})")).unwrap_or_default()
    )]
    Broken {
        /// The file of nuclei.
        path: PathBuf,
        /// From 0.
        byte: u64,
        /// Key of the nucleus that holds the place, where it is known.
        nucleus: Option<String>,
        /// What is wrong there.
        reason: String,
    },
    /// The file is whole, but holds what cannot be used, or lacks what is needed.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file of nuclei.
        path: PathBuf,
        /// What is wrong, and the cure.
        reason: String,
    },
}

/// What the file may not say itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// µm per px of the file, over what it says.
    pub mpp: Option<f64>,
    /// px: µm/px may stay unknown.
    pub units: Units,
    /// Names and colours, for a file without its own.
    pub types: Option<Vec<TypeInfo>>,
    /// Name of the result.
    pub stem: String,
}

/// Reads a file of nuclei. Rows are in order of the file's ids, which are kept.
///
/// ```
/// use wsi_nuclei::{ImportOptions, Units, read_json};
///
/// // hover_net's schema; an outline goes through pixel centres.
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("nuclei.json");
/// let text = r#"{"mag": 40, "nuc": {"7": {"contour": [[2, 2], [6, 2], [6, 5], [2, 5]], "type": 1}}}"#;
/// std::fs::write(&path, text)?;
///
/// let options = ImportOptions { mpp: None, units: Units::Um, types: None, stem: "field".into() };
/// let result = read_json(&path, &options)?;
/// assert_eq!(result.nuclei[0].area_px, 5 * 4);
/// assert_eq!(result.frames().level0_mpp, [0.25, 0.25]);
/// assert_eq!(result.records().next().map(|record| record.id), Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ImportError`] for a file that cannot be read, breaks somewhere, or lacks a µm/px that it needs.
pub fn read(path: &Path, options: &Options) -> Result<SlideResult, ImportError> {
    let header = hovernet_json::header(path)?;
    let scale = scale_of(path, &header, options)?;
    let grid = Grid::of(&header);
    let mut budget = fill::Budget::for_nuclei(header.count);
    let mut all: Vec<(ImportedLabel, Nucleus)> = Vec::with_capacity(header.count);
    let mut unusable: Vec<String> = Vec::new();
    hovernet_json::for_each(path, |key, entry| {
        match entry.and_then(|entry| nucleus(key, entry, &grid, &mut budget)) {
            Ok(usable) => all.push(usable),
            Err(reason) => unusable.push(format!("nucleus {key}: {reason}")),
        }
        Ok(())
    })?;
    if let (true, Some(first)) = (all.is_empty(), unusable.first()) {
        return Err(ImportError::Content {
            path: path.to_owned(),
            reason: format!("none of its {} nuclei can be used; {first}", unusable.len()),
        });
    }
    all.sort_by_key(|(label, _)| label.id);
    if let Some(pair) = all.windows(2).find(|pair| pair[0].0.id == pair[1].0.id) {
        return Err(ImportError::Content {
            path: path.to_owned(),
            reason: format!(
                "two nuclei have the id {}: the file was edited: give each its own",
                pair[0].0.id
            ),
        });
    }
    let (labels, nuclei): (Vec<ImportedLabel>, Vec<Nucleus>) = all.into_iter().unzip();
    let types = types_of(&header, options, &labels);
    let mut meta = meta(path, &header, options, &scale, &grid, types, &nuclei);
    if let Some(first) = unusable.first() {
        let (left_out, count) = (unusable.len(), header.count);
        meta.warnings.push(format!(
            "{}: {left_out} of {count} nuclei cannot be used and are left out; the first: {first}",
            path.display()
        ));
    }
    Ok(SlideResult {
        coverage: Coverage::whole(meta.frames.proc_rect().area()),
        meta,
        nuclei,
        read_errors: Vec::new(),
        rings: None,
        imported: Some(Imported {
            labels,
            scale_known: scale.mpp.is_some(),
        }),
        examined: None,
    })
}

struct Scale {
    /// Of the file's px.
    mpp: Option<[f64; 2]>,
    from: &'static str,
    warning: Option<String>,
}

/// `--mpp`, else what the file says, else its magnification.
fn scale_of(path: &Path, header: &Header, options: &Options) -> Result<Scale, ImportError> {
    let known = |mpp, from| Scale {
        mpp: Some(mpp),
        from,
        warning: None,
    };
    let sensible = |mpp: &[f64; 2]| mpp.iter().all(|v| (0.01..=100.0).contains(v));
    if let Some(mpp) = options.mpp {
        return Ok(known([mpp; 2], "flag"));
    }
    if let Some(mpp) = header
        .mpp_xy
        .or(header.mpp.map(|mpp| [mpp; 2]))
        .filter(sensible)
    {
        return Ok(known(mpp, "file"));
    }
    let from_mag = header.mag.map(|mag| [MPP_AT_40X * 40.0 / mag; 2]);
    if let (Some(mpp), Some(mag)) = (from_mag.filter(sensible), header.mag) {
        return Ok(Scale {
            mpp: Some(mpp),
            from: "objective",
            warning: Some(format!(
                "{}: no µm/px, so {} is taken for its magnification {mag}: --mpp says it better",
                path.display(),
                mpp[0]
            )),
        });
    }
    match options.units {
        Units::Px => Ok(Scale {
            mpp: None,
            from: "unknown",
            warning: None,
        }),
        Units::Um => Err(ImportError::Content {
            path: path.to_owned(),
            reason: "neither µm/px nor a magnification is in it: give --mpp, or --units px".into(),
        }),
    }
}

/// The px that masks are filled in: the file's own, or, where this program wrote it, those of its model.
struct Grid {
    proc_per_file: [f64; 2],
    /// Px of the file per level-0 px: 1 but for files of `hovernet wsi`.
    file_per_level0: [f64; 2],
    /// Width and height of the slide in the file's px, if the file says.
    size_px: Option<[u64; 2]>,
}

impl Grid {
    fn of(header: &Header) -> Self {
        let sensible = |ratio: &[f64; 2]| ratio.iter().all(|r| (1e-4..=1e4).contains(r));
        let file_per_level0 = header.px_per_level0.filter(sensible).unwrap_or([1.0; 2]);
        let proc_per_level0 = header.proc_per_level0.filter(sensible);
        let proc_per_file = proc_per_level0.map(|proc| divided(proc, file_per_level0));
        Self {
            proc_per_file: proc_per_file.filter(sensible).unwrap_or([1.0; 2]),
            file_per_level0,
            size_px: header.size_px,
        }
    }

    /// The px whose centre is nearest to a point of the file; `None` beyond what can be counted.
    fn px(&self, point: [f64; 2]) -> Option<[i32; 2]> {
        let mut px = [0; 2];
        for axis in 0..2 {
            let (at, ratio) = (point[axis], self.proc_per_file[axis]);
            let last = self.size_px.map(|size| size[axis].saturating_sub(1) as f64);
            let mut proc = ((at + 0.5) * ratio - 0.5).round();
            // Outlines end at the centres of the slide's own rim: its first and last px of the model are there.
            if ratio > 1.0 && at == 0.0 {
                proc = 0.0;
            } else if ratio > 1.0 && Some(at) == last {
                proc = (((at + 1.0) * ratio).round() - 1.0).max(0.0);
            }
            if proc.is_nan() || proc.abs() >= f64::from(1 << 29) {
                return None;
            }
            px[axis] = proc as i32;
        }
        Some(px)
    }
}

fn divided(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] / b[0], a[1] / b[1]]
}

fn nucleus(
    key: &str,
    entry: Entry,
    grid: &Grid,
    budget: &mut fill::Budget,
) -> Result<(ImportedLabel, Nucleus), String> {
    let id = key
        .parse()
        .map_err(|_| format!("the key `{key}` is no whole number"))?;
    let type_id = match entry.kind {
        Some(kind) if kind.fract() == 0.0 && (0.0..MAX_TYPES as f64).contains(&kind) => {
            Some(kind as usize)
        }
        Some(kind) => return Err(format!("the type {kind} is none of 0 to {}", MAX_TYPES - 1)),
        None => None,
    };
    let points: Option<Vec<[i32; 2]>> = entry.contour.iter().map(|p| grid.px(*p)).collect();
    let points = points.ok_or("a point of its outline lies beyond any slide")?;
    let filled = fill::filled(&points, budget)?;
    let label = ImportedLabel {
        id,
        type_id,
        type_prob: entry.type_prob,
    };
    let nucleus = Nucleus {
        bbox: filled.bbox,
        mask: filled.mask,
        area_px: filled.area_px,
        prob_sums: Vec::new(),
        type_counts: Vec::new(),
        np_sum: 0,
        stain: StainSums::default(),
        cut: false,
    };
    Ok((label, nucleus))
}

/// The file's own names, else the given ones, else numbers; an entry for every type that occurs. Empty: no nucleus has
/// a type.
fn types_of(header: &Header, options: &Options, labels: &[ImportedLabel]) -> Vec<TypeInfo> {
    let mut types = match &header.types {
        Some(types) if !types.is_empty() => types.clone(),
        _ => options.types.clone().unwrap_or_default(),
    };
    let most = labels.iter().filter_map(|label| label.type_id).max();
    for id in types.len()..most.map_or(0, |id| id + 1) {
        types.push(TypeInfo {
            name: format!("type {id}"),
            color: [0; 3],
        });
    }
    types
}

fn meta(
    path: &Path,
    header: &Header,
    options: &Options,
    scale: &Scale,
    grid: &Grid,
    types: Vec<TypeInfo>,
    nuclei: &[Nucleus],
) -> SlideMeta {
    // From here on in level-0 px: every writer counts in them.
    let file_per_level0 = grid.file_per_level0;
    let ratio = [0, 1].map(|i| grid.proc_per_file[i] * file_per_level0[i]);
    let proc_end = nuclei.iter().fold([1, 1], |end, nucleus| {
        let b = nucleus.bbox;
        [b.right().max(end[0]), b.bottom().max(end[1])]
    });
    let of_file = |size: [u64; 2]| {
        [0, 1].map(|i| ((size[i] as f64 / file_per_level0[i]).round() as u64).max(1))
    };
    let size = header
        .level0_size_px
        .or(header.size_px.map(of_file))
        .unwrap_or_else(|| [0, 1].map(|i| (f64::from(proc_end[i]) / ratio[i]).ceil() as u64));
    let file_mpp = scale.mpp.unwrap_or([1.0; 2]);
    let mpp = [0, 1].map(|i| file_mpp[i] * file_per_level0[i]);
    let [per_x, per_y] = file_per_level0;
    let power = |mag: f64| mag / (per_x * per_y).sqrt();
    let proc_size = [0, 1].map(|i| ((size[i] as f64 * ratio[i]).round() as i32).max(1));
    let frames = Frames {
        level0_size_px: size,
        level0_mpp: mpp,
        proc_size_px: proc_size,
        proc_per_level0: ratio,
    };
    let [proc_mpp_x, proc_mpp_y] = frames.proc_mpp();
    SlideMeta {
        identity: BTreeMap::from([("json_sha256".to_owned(), json!(header.sha256))]),
        stem: options.stem.clone(),
        slide: SlideSource {
            path: path.to_owned(),
            objective_power: header.mag.map(power),
            bounds_px: header.bounds_px,
            quickhash: header.slide.clone().unwrap_or_default(),
        },
        manifest: Vec::new(),
        mpp_from: scale.from.into(),
        frames,
        model: ModelCard {
            name: header.model_name.clone().unwrap_or("unknown".into()),
            mpp: (proc_mpp_x * proc_mpp_y).sqrt(),
            types,
            sha256: header.model_sha256.clone(),
            ..ModelCard::default()
        },
        tissue_mm2: frames.mm2(frames.proc_rect().area()),
        tissue_from: crate::tissue::TissueSource::Image,
        region: None,
        warnings: scale.warning.clone().into_iter().collect(),
    }
}
