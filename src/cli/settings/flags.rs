//! Every setting of `run`, once: its name, its help and its type. Its default stands in config/default.toml.
//!
//! In: nothing. Out: [`Settings`], what one layer (flags, environment, file, default) says: all optional, each value
//! checked alone. What they mean together is checked once, in [`super::RunConfig`].

use std::path::PathBuf;

use clap::builder::BoolishValueParser;

use crate::model::{DeviceChoice, Precision, Tta};
use crate::nuclei::PostprocRules;
use crate::output::{Formats, GeojsonFrame, Units};
use crate::plan::Shard;
use crate::tissue::MaskChoice;

use super::values::{Auto, ByteSize, Count, Level0Box, Mpp, ProgressMode};

macro_rules! settings {
    ($( $(#[doc = $help:expr])* $(#[arg($($arg:tt)*)])? $name:ident : $type:ty ),* $(,)?) => {
        /// What one layer says. `None`: nothing.
        #[derive(Debug, Clone, Default, clap::Args)]
        pub struct Settings {
            $( $(#[doc = $help])* #[arg(long, $($($arg)*)?)] pub $name: Option<$type>, )*
        }

        impl Settings {
            /// Field names, in the order of the help.
            pub const FIELDS: &[&str] = &[$(stringify!($name)),*];

            /// Takes what `above` says over what stands here.
            pub fn overlay(&mut self, above: Settings) {
                $( if above.$name.is_some() { self.$name = above.$name; } )*
            }

            /// Whether this layer says something about `field`.
            pub fn has(&self, field: &str) -> bool {
                match field {
                    $( stringify!($name) => self.$name.is_some(), )*
                    _ => false,
                }
            }

            /// The value of `field` as run.json shows it.
            pub fn value(&self, field: &str) -> serde_json::Value {
                match field {
                    // A path that is no UTF-8 has no JSON; the error says so in its place.
                    $( stringify!($name) => serde_json::to_value(&self.$name)
                        .unwrap_or_else(|error| error.to_string().into()), )*
                    _ => serde_json::Value::Null,
                }
            }
        }
    };
}

settings! {
    /// Folder for the results; each slide gets OUT/<stem>/
    #[arg(short, value_name = "OUT")]
    output: PathBuf,
    /// Model name or folder [default: the embedded one]
    #[arg(value_name = "NAME|FOLDER", help_heading = "Model")]
    model: String,
    /// auto, cpu, cuda, cuda:1 or several as cuda:0,1 [default: auto]
    #[arg(help_heading = "Model")]
    device: DeviceChoice,
    /// Arithmetic of the network; auto: f32 on a CPU, tf32 on a GPU [default: auto]
    #[arg(value_enum, help_heading = "Model")]
    precision: Precision,
    /// Patches a batch on a GPU; no result depends on it on a CPU [default: auto]
    #[arg(value_name = "N", help_heading = "Model")]
    batch_size: Auto<Count>,
    /// Side of the network's input, px [default: auto, the model's]
    #[arg(value_name = "PX", help_heading = "Model")]
    patch_size: Auto<Count>,
    /// Average each patch over mirrored (flips, 4 times the work) or mirrored and turned views (d8, 8 times) [default: none]
    #[arg(value_enum, help_heading = "Model")]
    tta: Tta,
    /// Rules of post-processing; reference is for single images [default: default]
    #[arg(value_enum, help_heading = "Model")]
    postproc: PostprocRules,
    /// µm a level-0 pixel, over what the slide says [default: auto, the slide's]
    #[arg(value_name = "UM", help_heading = "Where to look")]
    mpp: Auto<Mpp>,
    /// Of a TIFF of several pages, the number of the one to read, from 1; otherwise the largest
    #[arg(value_name = "N", help_heading = "Where to look")]
    page: Count,
    /// Run slides of more than 2 µm a pixel too, on which nuclei can hardly be seen
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), help_heading = "Where to look")]
    force_scale: bool,
    /// Tissue: otsu (found on the slide), none (everything), or a PNG over the whole slide, whose nuclei alone count [default: otsu]
    #[arg(value_name = "PNG|none|otsu", help_heading = "Where to look")]
    mask: MaskChoice,
    /// GeoJSON polygons, in the frame of --geojson-frame: only nuclei whose centroid lies inside
    #[arg(value_name = "GEOJSON", help_heading = "Where to look")]
    roi: PathBuf,
    /// Only nuclei whose centroid lies in this box of level-0 pixels
    #[arg(value_name = "X,Y,W,H", help_heading = "Where to look")]
    level0_box: Level0Box,
    /// Files of nuclei: json, csv, parquet, geojson, geojson.gz, overlay, crops, report, ome-zarr
    /// [default: json,csv,parquet,geojson,overlay,crops,report]
    #[arg(value_name = "LIST", help_heading = "Results")]
    format: Formats,
    /// Unit of lengths and areas in tables [default: um]
    #[arg(value_enum, help_heading = "Results")]
    units: Units,
    /// Origin of nuclei.geojson and of --roi: qupath (openslide.bounds taken off), level0 [default: qupath]
    #[arg(value_enum, help_heading = "Results")]
    geojson_frame: GeojsonFrame,
    /// Add eight hex digits of the path's hash to every folder: for slides with the same stem
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), help_heading = "Results")]
    dedupe_names: bool,
    /// Drop the checkpoint and start again
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), help_heading = "Work")]
    restart: bool,
    /// Only this share of each slide's tiles, counted from 0, as 0/4; whoever finishes the last one writes the results
    #[arg(value_name = "I/N", help_heading = "Work")]
    shard: Shard,
    /// Go on with a checkpoint that other hardware or libraries wrote; the summary says so
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), help_heading = "Work")]
    mix_devices: bool,
    /// Copy each slide to this folder of a local disk first, where there is room; auto: the scheduler's ($SLURM_TMPDIR or $TMPDIR)
    #[arg(value_name = "DIR|auto", help_heading = "Work")]
    stage: PathBuf,
    /// Try a slide again so often after failures that may pass (files that did not answer), 5 s later, then 10 s, … [default: 0]
    #[arg(value_name = "N", help_heading = "Work")]
    retries: u32,
    /// End with N, not 75, when stopped on request (nf-core starts 130 to 145 again)
    #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..), help_heading = "Work")]
    requeue_exit_code: u8,
    /// Side of a tile, px at the model's µm/px; no result depends on it [default: auto]
    #[arg(value_name = "PX", help_heading = "Work")]
    tile_size: Auto<Count>,
    /// Worker threads [default: auto, all cores]
    #[arg(value_name = "N", help_heading = "Work")]
    threads: Auto<Count>,
    /// Budget of memory, as 8GiB [default: auto]
    #[arg(value_name = "SIZE", help_heading = "Work")]
    memory: Auto<ByteSize>,
    /// What to show while it runs [default: auto]
    #[arg(value_enum, help_heading = "Messages")]
    progress: ProgressMode,
    /// Errors only
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), help_heading = "Messages")]
    quiet: bool,
    /// Also write plain lines here
    #[arg(value_name = "FILE", help_heading = "Messages")]
    log: PathBuf,
}

/// The name of a field as users write it in files and flags: `tile_size` -> `tile-size`.
pub fn public_name(field: &str) -> String {
    field.replace('_', "-")
}
