//! Everything that is decided about a slide before its first patch is read.
//!
//! In: the slide's file and settings, the model. Out: [`Prepared`]: pixels, plan, budget and an open store whose
//! identity matches. A store of another identity is refused, never mixed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::PipelineError;
use super::budget::{self, Budget, Resources};
use crate::digest::hex;
use crate::geometry::Rect;
use crate::model::{Model, ModelSpec, Pool};
use crate::nuclei::PostprocParams;
use crate::output::GeojsonFrame;
use crate::plan::{PatchGrid, Plan, Shard};
use crate::slide::blocks::ProcImage;
use crate::slide::frames::Frames;
use crate::slide::{self, SlideReader};
use crate::store::{Lock, Store, StoreMeta};
use crate::tissue::{self, Area, MaskChoice, Region, Regions, TissueMask, TissueSource};

/// Raised whenever the same input gives another result.
pub const ALGORITHM: u32 = 1;
/// Longest side of the thumbnail, px, and its finest scale: a small slide's would else be the most of its store.
const THUMB_PX: f64 = 2048.0;
const THUMB_UM_PER_PX: f64 = 1.0;

/// What is asked of one slide.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub path: PathBuf,
    /// A copy of the slide that is read in its place.
    pub read_from: Option<PathBuf>,
    /// Folder name of the slide's outputs.
    pub stem: String,
    /// What a manifest says of the slide beside what the run needs: column and cell.
    pub manifest: Vec<(String, String)>,
    /// µm per level-0 px, over what the slide says.
    pub mpp: Option<f64>,
    /// Where `mpp` came from: `manifest` or `flag`.
    pub mpp_from: Option<&'static str>,
    /// Of a TIFF of several pages, the number of the one to read, from 1; `None`: the largest.
    pub page: Option<usize>,
    pub mask: MaskChoice,
    /// Whether nuclei outside a drawn mask are left out.
    pub mask_is_region: bool,
    /// A GeoJSON file of the regions to look at.
    pub roi: Option<PathBuf>,
    /// Where the regions have their origin.
    pub roi_frame: GeojsonFrame,
    /// The box to look at, level-0 px.
    pub level0_box: Option<Rect>,
    /// Side of the network's input, px, in place of the model's.
    pub patch_size_px: Option<u32>,
    /// Side of a tile, px at the model's µm/px.
    pub tile_size_px: Option<u32>,
    /// Budget of memory; `None`: 60 % of what the machine allows.
    pub memory_bytes: Option<u64>,
    /// Worker threads, at least 1.
    pub threads: usize,
    pub shard: Option<Shard>,
    pub mix_devices: bool,
    /// Whether to run a slide on which nuclei cannot be seen.
    pub force_scale: bool,
}

/// A slide that is ready to run.
pub struct Prepared {
    pub image: ProcImage,
    pub plan: Plan,
    pub resources: Resources,
    pub budget: Budget,
    pub postproc: PostprocParams,
    pub tissue_mm2: f64,
    pub warnings: Vec<String>,
    pub meta: StoreMeta,
    pub area: Area,
    /// The share of the tiles that this process runs; `None`: all.
    pub shard: Option<Shard>,
    /// Whether tiles of other hardware may stay.
    pub mix_devices: bool,
}

/// The patch grid of a slide. `patch_px` replaces the model's input side; the margin stays.
pub fn grid_of(
    spec: &ModelSpec,
    frames: &Frames,
    patch_px: Option<u32>,
) -> Result<PatchGrid, PipelineError> {
    let side = |px: u32| i32::try_from(px).unwrap_or(i32::MAX);
    let (patch_in_px, patch_out_px) = match patch_px {
        None => (spec.patch_in_px, spec.patch_out_px),
        Some(px) => {
            let other = spec
                .clone()
                .with_patch_in_px(side(px), Path::new("--patch-size"))?;
            (other.patch_in_px, other.patch_out_px)
        }
    };
    Ok(PatchGrid {
        slide_px: frames.proc_size_px,
        patch_in_px,
        patch_out_px,
    })
}

/// Opens a slide and decides what to do with it; nothing is written.
///
/// # Errors
/// A slide that cannot be read or has no µm/px, a mask or region that does not fit, a budget that is too small.
pub fn prepare(request: &Request, pool: &Pool) -> Result<Prepared, PipelineError> {
    let model = pool.model();
    let file = request.read_from.as_ref().unwrap_or(&request.path);
    let reader: Arc<dyn SlideReader> = slide::open_page(file, request.page)?.into();
    let mut info = reader.info().clone();
    // A copy is gone after the run: what looks for the slide later must find it where it lies.
    info.path.clone_from(&request.path);
    let mpp = slide::mpp::resolve_mpp(&info, request.mpp)?;
    let (frames, level) = Frames::for_slide(&info, mpp.mpp, model.spec.mpp)?;
    frames.refuse_coarse(&request.path, request.force_scale)?;
    let mut warnings: Vec<String> = mpp
        .warning
        .into_iter()
        .chain(frames.scale_warning(model.spec.mpp))
        .collect();
    let (area, area_sha256) = area_of(request, reader.as_ref(), &frames, &mut warnings)?;
    let region = area.region(request.mask_is_region && matches!(request.mask, MaskChoice::File(_)));
    let tissue_mm2 = match &region {
        Some(region) => region.tissue_mm2,
        None => area.tissue_mm2(),
    };
    let nothing = nothing_to_do(&frames, region.as_ref(), tissue_mm2);
    if request.mask != MaskChoice::None {
        warnings.extend(tissue::share_warning(area.mask()));
    }
    let grid = grid_of(&model.spec, &frames, request.patch_size_px)?;
    let tile_px = request.tile_size_px.unwrap_or(budget::default_tile_px());
    let mut plan = Plan::new(grid, tile_px as i32, &frames, &area);
    if nothing.is_some() {
        plan.tiles.clear();
    }
    warnings.extend(nothing);
    let resources = Resources {
        memory_bytes: request
            .memory_bytes
            .unwrap_or_else(budget::default_memory_bytes),
        threads: request.threads,
        feed: pool.feed(),
    };
    let budget = budget::divide(resources, &model.spec, &plan)?;
    let mut identity = identity(&info, model, &frames, level, &grid, &area_sha256);
    if region.is_some() {
        // Stores of a time when whole patches were reported are not gone on with.
        identity.insert("region_reports".into(), json!("centroids inside"));
    }
    let from = request
        .mpp_from
        .filter(|_| request.mpp.is_some())
        .unwrap_or(mpp.from);
    let meta = StoreMeta {
        identity,
        layout: plan.layout(),
        stem: request.stem.clone(),
        slide: info,
        manifest: request.manifest.clone(),
        mpp_from: from.to_string(),
        frames,
        model: model.spec.clone(),
        tissue_mm2,
        tissue_from: TissueSource::from(&request.mask),
        region,
        warnings: warnings.clone(),
    };
    let image = ProcImage::new(reader, frames, level, budget.cache_bytes as usize);
    Ok(Prepared {
        image,
        plan,
        resources,
        budget,
        postproc: model.spec.postproc.clone(),
        tissue_mm2,
        warnings,
        meta,
        area,
        shard: request.shard,
        mix_devices: request.mix_devices,
    })
}

impl Prepared {
    /// Opens the slide's store, or makes it, and holds it against other processes as long as it lives. The tile grid of
    /// a store that is there wins over the settings'.
    pub fn open_store(&mut self, path: &Path, restart: bool) -> Result<Store, PipelineError> {
        // Without its zarr.json a folder is what --restart or a kill while it was made left behind.
        let make = || -> Result<(), PipelineError> {
            if !path.join("zarr.json").exists() {
                let thumb = slide::thumb::thumb(
                    self.image.reader().as_ref(),
                    thumb_side_px(&self.meta.frames),
                )?;
                let mut meta = self.meta.clone();
                meta.warnings
                    .extend(tissue::stain_warning(&thumb, self.area.mask()));
                Store::create(path, &meta, &thumb, self.area.mask())?;
            }
            Ok(())
        };
        let lock = match self.shard {
            Some(_) => Lock::shared(path, make)?,
            None => {
                let lock = Lock::alone(path)?;
                if restart {
                    crate::store::remove(path)?;
                }
                make()?;
                lock
            }
        };
        let mut store = Store::open(path)?;
        store.hold(lock);
        // What was noticed when the store was made is as true now.
        let stored = &store.meta().warnings;
        let new = stored.iter().filter(|text| !self.warnings.contains(text));
        self.warnings.extend(new.cloned().collect::<Vec<_>>());
        store.check_identity(&self.meta)?;
        let stored = store.meta().layout.tile_patches;
        if stored != self.plan.tile_patches {
            self.warnings.push(format!(
                "the store's tiles have {} px, not {}: they stay (--restart begins anew)",
                stored * self.plan.grid.patch_out_px,
                self.plan.tile_patches * self.plan.grid.patch_out_px,
            ));
            self.plan = Plan::new(
                self.plan.grid,
                stored * self.plan.grid.patch_out_px,
                self.image.frames(),
                &self.area,
            );
            self.budget = budget::divide(self.resources, &self.meta.model, &self.plan)?;
        }
        Ok(store)
    }
}

/// Why nothing will be predicted, if so.
fn nothing_to_do(frames: &Frames, region: Option<&Region>, tissue_mm2: f64) -> Option<String> {
    let [width, height] = frames.level0_size_px;
    if region.is_some_and(|region| !region.is_on_slide(frames.level0_size_px)) {
        return Some(format!(
            "the region asked for lies outside the slide of {width} x {height} px: nothing will be predicted (check the \
             coordinates; --geojson-frame says where those of --roi have their origin)"
        ));
    }
    let pixel_mm2 = frames.level0_mpp[0] * frames.level0_mpp[1] / 1e6;
    if region.is_some_and(|region| !region.by_mask && region.mm2 < pixel_mm2) {
        return Some(
            "the region asked for is smaller than a pixel: nothing will be predicted".into(),
        );
    }
    if tissue_mm2 > 0.0 {
        return None;
    }
    Some(match region {
        Some(_) => "no tissue was found in the region asked for: nothing will be predicted there \
                    (--mask none looks everywhere)"
            .into(),
        None => {
            "no tissue was found: nothing will be predicted (--mask none looks everywhere)".into()
        }
    })
}

/// Longest side of a slide's thumbnail, px.
fn thumb_side_px(frames: &Frames) -> u32 {
    let sides = frames.level0_size_px.iter().zip(frames.level0_mpp);
    let longer_um = sides.map(|(&px, mpp)| px as f64 * mpp).fold(0.0, f64::max);
    (longer_um / THUMB_UM_PER_PX).clamp(1.0, THUMB_PX).ceil() as u32
}

/// Where to look (mask and region and box, all that are given), and a hash of it for the identity.
fn area_of(
    request: &Request,
    reader: &dyn SlideReader,
    frames: &Frames,
    warnings: &mut Vec<String>,
) -> Result<(Area, String), PipelineError> {
    let (size, mpp) = (frames.level0_size_px, frames.level0_mpp);
    let mask = match &request.mask {
        MaskChoice::Otsu => tissue::detect(reader, mpp)?,
        MaskChoice::None => TissueMask::all(size, mpp),
        MaskChoice::File(path) => TissueMask::from_png(path, size)?,
    };
    let mut hash = Sha256::new();
    hash.update(format!("{} x {}", mask.width, mask.height));
    hash.update(mask.tissue.iter().map(|&t| u8::from(t)).collect::<Vec<_>>());
    let mut area = Area::new(mask, size, mpp);
    if let Some(path) = &request.roi {
        let mut regions = Regions::from_geojson(path)?;
        if regions.skipped() > 0 {
            warnings.push(format!(
                "{}: {} parts that are no polygons (points, lines, empty ones) were skipped",
                path.display(),
                regions.skipped()
            ));
        }
        if let (GeojsonFrame::Qupath, Some([x, y, ..])) =
            (request.roi_frame, reader.info().bounds_px)
        {
            // QuPath's origin is the corner of the bounds.
            regions = regions.moved([x as f64, y as f64]);
            hash.update(format!("moved by {x},{y}"));
        }
        area = area.within(regions);
        // Readable a moment ago; if it is gone now, its absence is another identity.
        hash.update(std::fs::read(path).unwrap_or_default());
    }
    if let Some(b) = &request.level0_box {
        let [x, y, w, h] = [b.x, b.y, b.w, b.h].map(f64::from);
        area = area.within_box([x, y, x + w, y + h]);
        hash.update(format!("{x},{y},{w},{h}"));
    }
    Ok((area, hex(&hash.finalize())))
}

/// Every setting that a result depends on, by name (docs/architecture.md, "Identity of a run").
fn identity(
    info: &slide::SlideInfo,
    model: &Model,
    frames: &Frames,
    level: usize,
    grid: &PatchGrid,
    area_sha256: &str,
) -> BTreeMap<String, Value> {
    let spec = &model.spec;
    let types: Vec<&str> = spec.types.iter().map(|t| t.name.as_str()).collect();
    [
        ("algorithm", json!(ALGORITHM)),
        ("slide_bytes", json!(info.file_bytes)),
        ("slide_quickhash", json!(info.quickhash)),
        ("weights_sha256", json!(model.weights_sha256)),
        ("architecture", json!(spec.architecture)),
        ("postproc", json!(spec.postproc)),
        ("types", json!(types)),
        ("mpp", json!(frames.level0_mpp)),
        ("proc_per_level0", json!(frames.proc_per_level0)),
        ("level", json!(level)),
        ("filter", json!(slide::FILTER_NAME)),
        ("patch_in_px", json!(grid.patch_in_px)),
        ("patch_out_px", json!(grid.patch_out_px)),
        ("area_sha256", json!(area_sha256)),
        ("background", json!(info.background)),
        ("precision", json!(model.precision)),
        ("tta", json!(model.tta)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_string(), value))
    .collect()
}
