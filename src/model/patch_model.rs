//! A loaded model and its workers.
//!
//! In: RGB patches. Out: one [`PredictionMap`] a patch. On a CPU every patch runs alone on one thread, so neither the
//! batch nor the number of workers can change a bit; on a GPU a batch runs at once. Never knows where a patch lies.

use std::sync::Arc;

use image::RgbImage;
use tch::{Device, Tensor};

use super::analytic::Analytic;
use super::device;
use super::error::ModelError;
use super::network::{Network, to_maps};
use super::spec::ModelSpec;
use super::tta::{Averaging, Tta};
use crate::prediction::PredictionMap;

/// Something that predicts patches: a torch network or the analytic model.
pub trait PatchModel: Send {
    /// Predicts patches of one size; a map is smaller than its patch by twice the model's margin.
    fn predict(&mut self, patches: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError>;
}

/// A model on its device. Weights are held once, however many workers there are.
pub struct Model {
    pub spec: ModelSpec,
    /// SHA-256 of the weights file, or of the rule's name for a model without weights: part of the identity.
    pub weights_sha256: String,
    pub device: Device,
    /// Views of each patch that are averaged: part of the identity.
    pub tta: Tta,
    pub(super) engine: Engine,
}

pub(super) enum Engine {
    Torch(SharedNetwork),
    Analytic(Analytic),
}

impl Model {
    /// One more worker, for one thread.
    pub fn worker(&self) -> Box<dyn PatchModel> {
        let inner = self.plain_worker();
        match self.tta {
            Tta::None => inner,
            tta => Box::new(Averaging { inner, tta }),
        }
    }

    fn plain_worker(&self) -> Box<dyn PatchModel> {
        match &self.engine {
            Engine::Torch(network) => Box::new(TorchWorker {
                network: network.clone(),
                device: self.device,
                margin_px: self.spec.margin_px() as u32,
                types: self.spec.types.len(),
            }),
            Engine::Analytic(analytic) => Box::new(analytic.clone()),
        }
    }
}

#[derive(Clone)]
pub(super) struct SharedNetwork(Arc<dyn Network>);

impl SharedNetwork {
    pub(super) fn new(network: impl Network + 'static) -> Self {
        Self(Arc::new(network))
    }
}

// SAFETY: `Network::forward` takes `&self` and, by its contract, only reads tensors that nobody changes after
// construction; libtorch allows concurrent reads of a tensor, and reference counts are atomic.
unsafe impl Send for SharedNetwork {}
// SAFETY: as above: sharing a reference gives nothing but `forward`.
unsafe impl Sync for SharedNetwork {}

struct TorchWorker {
    network: SharedNetwork,
    device: Device,
    margin_px: u32,
    types: usize,
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
            return Err(ModelError::Input {
                reason: "the patches of one batch are of different sizes".into(),
            });
        }
        let output = |side: u32| side.checked_sub(2 * self.margin_px).filter(|&px| px > 0);
        let (Some(out_width), Some(out_height)) = (output(width), output(height)) else {
            return Err(ModelError::Input {
                reason: format!(
                    "a patch of {width} x {height} px leaves nothing inside {} px of margin",
                    self.margin_px
                ),
            });
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
        let _quiet = device::inference_guard(self.device);
        tch::no_grad(|| {
            let rgb = to_tensor(patches)?.f_to_device(self.device)?;
            let raw = self.network.0.forward(&rgb)?;
            to_maps(&raw, self.types, out_height, out_width)
        })
    }
}

/// u8 `[N, 3, H, W]` on the CPU, channels last in memory, of patches of one size.
fn to_tensor(patches: &[RgbImage]) -> Result<Tensor, ModelError> {
    let (width, height) = patches.first().map_or((0, 0), RgbImage::dimensions);
    let shape = [patches.len() as i64, i64::from(height), i64::from(width), 3];
    let bytes = match patches {
        [one] => Tensor::f_from_slice(one.as_raw())?,
        many => {
            let all: Vec<u8> = many
                .iter()
                .flat_map(|patch| patch.as_raw())
                .copied()
                .collect();
            Tensor::f_from_slice(&all)?
        }
    };
    Ok(bytes.f_view(shape)?.f_permute([0, 3, 1, 2])?)
}
