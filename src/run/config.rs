//! What a run is asked to do: plain values, checked before they come here.
//!
//! In: nothing. Out: [`RunConfig`], the same for every slide of a run, and [`SlideConfig`], what one slide gets. Holds
//! nothing of a terminal: how progress is shown is the caller's affair.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::geometry::Rect;
use crate::model::{DeviceChoice, Precision, Tta};
use crate::nuclei::PostprocRules;
use crate::output::{Choice, Format, GeojsonFrame, Needs, Units};
use crate::pipeline::Request;
use crate::plan::Shard;
use crate::tissue::MaskChoice;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    File,
    Environment,
    Flag,
}

/// A setting as run.json shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    pub value: serde_json::Value,
    pub from: Origin,
}

/// The settings of a run of slides or images.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// Folder of the results: each slide gets `OUT/<stem>/`.
    pub output: PathBuf,
    /// `default` (the embedded one), a name, or a folder.
    pub model: String,
    /// Where the network runs.
    pub device: DeviceChoice,
    /// The arithmetic that the network computes in.
    pub precision: Precision,
    /// Patches at once on a GPU; `None`: what suits the device.
    pub batch_size: Option<usize>,
    /// Side of the network's input, px; `None`: the model's.
    pub patch_size_px: Option<u32>,
    /// Turned and mirrored views of each patch whose maps are averaged.
    pub tta: Tta,
    /// How maps become nuclei.
    pub postproc: PostprocRules,
    /// µm per proc px that a HoVer-Net is shown; `None`: what its folder says.
    pub hovernet_mpp: Option<f64>,
    /// µm per level-0 px, over what the slides say.
    pub mpp: Option<f64>,
    /// Of a TIFF of several pages, the number of the one to read, from 1; `None`: the largest.
    pub page: Option<usize>,
    /// Where tissue is looked for.
    pub mask: MaskChoice,
    /// Whether nuclei outside a drawn mask are left out; hover_net keeps them.
    pub mask_is_region: bool,
    /// A GeoJSON file of the regions to look at.
    pub roi: Option<PathBuf>,
    /// The box to look at, level-0 px.
    pub level0_box: Option<Rect>,
    /// `None`: those that suit slides, or images.
    pub formats: Option<Vec<Format>>,
    /// Unit of lengths and areas in tables.
    pub units: Units,
    /// Where nuclei.geojson has its origin.
    pub geojson_frame: GeojsonFrame,
    /// Add eight hex digits of the path's hash to every folder.
    pub dedupe_names: bool,
    /// Drop the checkpoint and start again.
    pub restart: bool,
    /// This process's share of the tiles; `None`: all.
    pub shard: Option<Shard>,
    /// Go on with a checkpoint that other hardware or libraries wrote.
    pub mix_devices: bool,
    /// A folder of a local disk that slides are copied to while they are in work; `auto`: the one that the scheduler gave.
    pub stage: Option<PathBuf>,
    /// How often a slide is tried again after failures that may pass.
    pub retries: u32,
    /// Run slides of more than 2 µm/px too.
    pub force_scale: bool,
    /// Side of a tile, px at the model's µm/px.
    pub tile_size_px: Option<u32>,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Most memory to use, bytes; `None`: 60 % of what the machine or its cgroup allows.
    pub memory_bytes: Option<u64>,
    /// Every setting with what it is and where it came from, by its public name, for run.json.
    pub settings: BTreeMap<String, Setting>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            output: "out".into(),
            model: "default".into(),
            device: DeviceChoice::Auto,
            precision: Precision::Auto,
            batch_size: None,
            patch_size_px: None,
            tta: Tta::None,
            postproc: PostprocRules::Default,
            hovernet_mpp: None,
            mpp: None,
            page: None,
            mask: MaskChoice::Otsu,
            mask_is_region: true,
            roi: None,
            level0_box: None,
            formats: None,
            units: Units::Um,
            geojson_frame: GeojsonFrame::Qupath,
            dedupe_names: false,
            restart: false,
            shard: None,
            mix_devices: false,
            stage: None,
            retries: 0,
            force_scale: false,
            tile_size_px: None,
            threads: crate::machine::usable_cores(),
            memory_bytes: None,
            settings: BTreeMap::new(),
        }
    }
}

impl RunConfig {
    /// What is written of a slide.
    pub fn formats_of_slides(&self) -> Vec<Format> {
        let formats = self.formats.clone();
        formats.unwrap_or_else(|| Format::defaults(Needs::Pixels))
    }

    /// What is written of a plain image.
    pub fn formats_of_images(&self) -> Vec<Format> {
        let formats = self.formats.clone();
        formats.unwrap_or_else(Format::defaults_of_images)
    }

    /// `formats`, and how they are written.
    pub fn choice<'a>(&self, formats: &'a [Format]) -> Choice<'a> {
        Choice {
            formats,
            units: self.units,
            geojson_frame: self.geojson_frame,
        }
    }
}

/// What one slide or image gets: the run's settings, with its row of the manifest over them.
#[derive(Debug, Clone, PartialEq)]
pub struct SlideConfig {
    pub path: PathBuf,
    /// A copy of the slide that is read in its place; no result names it.
    pub read_from: Option<PathBuf>,
    /// Name of the slide's folder under the output folder: one path component.
    pub stem: String,
    /// Where the slide's results go: `OUT/<stem>`.
    pub folder: PathBuf,
    /// What is named as the place of the results where that is not `folder`: hover_net's JSON.
    pub results: Option<PathBuf>,
    pub model: String,
    pub mpp: Option<f64>,
    /// Where `mpp` came from: `manifest` or `flag`, whichever layer of the settings said it.
    pub mpp_from: Option<&'static str>,
    pub mask: MaskChoice,
    pub roi: Option<PathBuf>,
    /// The manifest's other columns: name and cell, in its order. Carried through to the tables.
    pub manifest: Vec<(String, String)>,
}

impl SlideConfig {
    /// What the pipeline is asked to do with this slide.
    pub fn request(&self, run: &RunConfig) -> Request {
        Request {
            path: self.path.clone(),
            read_from: self.read_from.clone(),
            stem: self.stem.clone(),
            manifest: self.manifest.clone(),
            mpp: self.mpp,
            mpp_from: self.mpp_from,
            page: run.page,
            mask: self.mask.clone(),
            mask_is_region: run.mask_is_region,
            roi: self.roi.clone(),
            roi_frame: run.geojson_frame,
            level0_box: run.level0_box,
            patch_size_px: run.patch_size_px,
            tile_size_px: run.tile_size_px,
            memory_bytes: run.memory_bytes,
            threads: run.threads,
            shard: run.shard,
            mix_devices: run.mix_devices,
            force_scale: run.force_scale,
        }
    }
}
