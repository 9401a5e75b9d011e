//! Workers that run torch networks.
//!
//! In: RGB patches. Out: one map per patch. On a CPU every patch runs alone on one thread, so neither the batch nor the
//! number of workers can change a bit. On a GPU a batch runs at once: its bytes go there from pinned memory, the
//! rounded maps come back into pinned memory, and nothing else crosses the bus.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use image::RgbImage;
use tch::{Kind, Tensor};

use super::device::{Device, inference_guard};
use super::error::ModelError;
use super::network::{Network, RawMaps, Wanted, quantise_on_device, to_maps, to_quantised};
use super::patch_model::PatchModel;
use crate::prediction::{PredictionMap, QuantisedMap};

/// A network that workers on several threads use at once.
#[derive(Clone)]
pub(super) struct SharedNetwork(Arc<dyn Network>);

impl SharedNetwork {
    pub(super) fn new(network: impl Network + 'static) -> Self {
        Self(Arc::new(network))
    }
}

impl Network for SharedNetwork {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError> {
        self.0.forward(rgb)
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
    network: SharedNetwork,
    device: Device,
    margin_px: u32,
    /// Type channels, background included.
    types: usize,
    /// Patches of a full batch; `None`: one patch at a time.
    batch: Option<usize>,
}

impl TorchWorker {
    /// `types`: type channels, background included.
    pub fn new(network: SharedNetwork, device: Device, margin_px: u32, types: usize) -> Self {
        Self {
            network,
            device,
            margin_px,
            types,
            batch: (device != Device::Cpu).then_some(1),
        }
    }
}

impl PatchModel for TorchWorker {
    fn set_batch(&mut self, batch: usize) {
        self.batch = self.batch.map(|_| batch.max(1));
    }

    fn predict(&mut self, patches: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError> {
        self.in_batches(patches, |raw, wanted, real| {
            let mut maps = to_maps(raw, wanted)?;
            maps.truncate(real);
            Ok(maps)
        })
    }

    fn predict_quantised(&mut self, patches: &[RgbImage]) -> Result<Vec<QuantisedMap>, ModelError> {
        match self.batch {
            None => self.in_batches(patches, |raw, wanted, _| to_quantised(raw, wanted)),
            Some(_) => self.in_batches(patches, quantise_on_device),
        }
    }
}

impl TorchWorker {
    /// Runs the network and gives `finish` its output, what is wanted of it and how many of the batch are real.
    fn in_batches<T>(
        &self,
        patches: &[RgbImage],
        finish: impl Fn(&RawMaps, Wanted, usize) -> Result<Vec<T>, ModelError>,
    ) -> Result<Vec<T>, ModelError> {
        let wanted = match self.wanted(patches)? {
            Some(wanted) => wanted,
            None => return Ok(vec![]),
        };
        let mut maps = Vec::with_capacity(patches.len());
        for some in patches.chunks(self.batch.unwrap_or(1)) {
            maps.extend(self.run(some, |raw| finish(raw, wanted, some.len()))?);
        }
        Ok(maps)
    }

    /// What to keep of the maps of `patches`, which must be of one size; `None`: there are none.
    fn wanted(&self, patches: &[RgbImage]) -> Result<Option<Wanted>, ModelError> {
        let Some(first) = patches.first() else {
            return Ok(None);
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
        match (output(height), output(width)) {
            (Some(height), Some(width)) => Ok(Some(Wanted {
                height: height as usize,
                width: width as usize,
                types: self.types,
            })),
            _ => Err(ModelError::input(format!(
                "a patch of {width} x {height} px leaves nothing inside {} px of margin",
                self.margin_px
            ))),
        }
    }

    fn run<T>(
        &self,
        patches: &[RgbImage],
        finish: impl Fn(&RawMaps) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let _quiet = inference_guard(self.device);
        let network = || {
            tch::no_grad(|| {
                let rgb = match self.batch {
                    None => one_on_cpu(&patches[0])?,
                    Some(batch) => batch_on(patches, padded(patches.len(), batch), self.device)?,
                };
                finish(&self.network.0.forward(&rgb)?)
            })
        };
        // Where a network does not ask for errors, tch panics with libtorch's message.
        catch_unwind(AssertUnwindSafe(network)).unwrap_or_else(|panic| {
            match error_of_panic(panic.as_ref()) {
                Some(error) => Err(error),
                None => resume_unwind(panic),
            }
        })
    }
}

/// Patches that are run for `real` ones of a batch of `full`: the half of it, the quarter and so on where they do. A
/// GPU's library measures its kernels for each size that it meets, so there are few.
fn padded(real: usize, full: usize) -> usize {
    let mut size = full.max(real);
    while size / 2 >= real && size > 1 {
        size /= 2;
    }
    size
}

/// The error of libtorch with which tch panicked; `None` for any other panic.
fn error_of_panic(panic: &(dyn std::any::Any + Send)) -> Option<ModelError> {
    let text = panic.downcast_ref::<String>()?;
    let (_, error) = text.split_once("an `Err` value: Torch(\"")?;
    let lines = error.trim_end_matches("\")").replace("\\n", "\n");
    Some(ModelError::from(tch::TchError::Torch(lines)))
}

/// A patch as u8 `[1, 3, H, W]`, channels last in memory.
fn one_on_cpu(patch: &RgbImage) -> Result<Tensor, ModelError> {
    let shape = [1, i64::from(patch.height()), i64::from(patch.width()), 3];
    let bytes = Tensor::f_from_slice(patch.as_raw())?;
    Ok(bytes.f_view(shape)?.f_permute([0, 3, 1, 2])?)
}

/// Patches of one size as u8 `[size, 3, H, W]` on `device`, channels last in memory; those that are missing are black.
fn batch_on(patches: &[RgbImage], size: usize, device: Device) -> Result<Tensor, ModelError> {
    let (width, height) = patches.first().map_or((0, 0), RgbImage::dimensions);
    let shape = [size as i64, i64::from(height), i64::from(width), 3];
    let mut host = Tensor::f_zeros(shape, (Kind::Uint8, tch::Device::Cpu))?;
    if device != Device::Cpu {
        host = host.f_pin_memory(device.into())?;
    }
    for (place, patch) in (0..).zip(patches) {
        let pixels = Tensor::f_from_slice(patch.as_raw())?.f_view(&shape[1..])?;
        host.f_get(place)?.f_copy_(&pixels)?;
    }
    let there = match device {
        Device::Cpu => host,
        // The allocator of pinned memory keeps it until the copy has been made.
        _ => host.f_internal_to_copy((Kind::Uint8, device.into()), true)?,
    };
    Ok(there.f_permute([0, 3, 1, 2])?)
}

#[cfg(test)]
mod tests;
