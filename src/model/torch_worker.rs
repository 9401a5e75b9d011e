//! Workers that run torch networks.
//!
//! In: RGB patches. Out: one [`PredictionMap`] per patch. On a CPU every patch runs alone on one
//! thread, so neither the batch nor the number of workers can change a bit; on a GPU a batch runs
//! at once.

use std::sync::Arc;

use image::RgbImage;
use tch::Tensor;

use super::device::{Device, inference_guard};
use super::error::ModelError;
use super::network::{Network, to_maps};
use super::patch_model::PatchModel;
use crate::prediction::PredictionMap;

/// A network that workers on several threads use at once.
#[derive(Clone)]
pub(super) struct SharedNetwork(Arc<dyn Network>);

impl SharedNetwork {
    pub(super) fn new(network: impl Network + 'static) -> Self {
        Self(Arc::new(network))
    }
}

// SAFETY: `Network::forward` takes `&self` and, by its contract, only reads tensors that nobody
// changes after construction. libtorch allows concurrent reads of a tensor, and reference counts
// are atomic.
unsafe impl Send for SharedNetwork {}
// SAFETY: as for Send: a shared reference gives access to `forward` alone.
unsafe impl Sync for SharedNetwork {}

/// Runs a torch network on patches.
#[derive(Clone)]
pub(super) struct TorchWorker {
    pub network: SharedNetwork,
    pub device: Device,
    pub margin_px: u32,
    /// Type channels, background included.
    pub types: usize,
}

impl PatchModel for TorchWorker {
    fn predict(&mut self, patches: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError> {
        let Some(first) = patches.first() else {
            return Ok(vec![]);
        };
        let (width, height) = first.dimensions();
        if patches
            .iter()
            .any(|patch| patch.dimensions() != (width, height))
        {
            return Err(ModelError::input(
                "the patches of one batch are of different sizes",
            ));
        }
        let output = |side: u32| side.checked_sub(2 * self.margin_px).filter(|&px| px > 0);
        let (Some(out_width), Some(out_height)) = (output(width), output(height)) else {
            return Err(ModelError::input(format!(
                "a patch of {width} x {height} px leaves nothing inside {} px of margin",
                self.margin_px
            )));
        };
        let batch = if self.device == Device::Cpu {
            1
        } else {
            patches.len()
        };
        let mut maps = Vec::with_capacity(patches.len());
        for patches in patches.chunks(batch) {
            maps.extend(self.forward(patches, out_height as usize, out_width as usize)?);
        }
        Ok(maps)
    }
}

impl TorchWorker {
    fn forward(
        &self,
        patches: &[RgbImage],
        out_height: usize,
        out_width: usize,
    ) -> Result<Vec<PredictionMap>, ModelError> {
        let _quiet = inference_guard(self.device);
        tch::no_grad(|| {
            let rgb = to_tensor(patches)?.f_to_device(self.device.into())?;
            let raw = self.network.0.forward(&rgb)?;
            to_maps(&raw, self.types, out_height, out_width)
        })
    }
}

/// Patches of one size as u8 `[N, 3, H, W]` on the CPU, channels last in memory.
fn to_tensor(patches: &[RgbImage]) -> Result<Tensor, ModelError> {
    let (width, height) = patches.first().map_or((0, 0), RgbImage::dimensions);
    let shape = [patches.len() as i64, i64::from(height), i64::from(width), 3];
    let bytes = match patches {
        [patch] => Tensor::f_from_slice(patch.as_raw())?,
        _ => {
            let all: Vec<u8> = patches
                .iter()
                .flat_map(|patch| patch.as_raw())
                .copied()
                .collect();
            Tensor::f_from_slice(&all)?
        }
    };
    Ok(bytes.f_view(shape)?.f_permute([0, 3, 1, 2])?)
}
