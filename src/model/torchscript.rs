//! TorchScript modules.
//!
//! In: the bytes of a module that maps f32 RGB `[N, 3, H, W]` in 0..=255 to the tuple (np, hv) or
//! (np, hv, tp). Out: a [`Network`]. Runs without profiling executor and fusers, so that the first
//! patch is computed as the last.

use std::io::Cursor;
use std::path::Path;
use std::sync::Once;

use tch::{CModule, Device, IValue, Kind, Tensor};

use super::error::ModelError;
use super::network::{Network, RawMaps};

/// A loaded module.
pub struct TorchScript {
    module: CModule,
}

impl TorchScript {
    /// Loads a module in evaluation mode; `path` is for messages only.
    ///
    /// # Errors
    /// [`ModelError::Format`] for anything but a module of torch.jit.save.
    pub fn load(bytes: &[u8], path: &Path, device: Device) -> Result<Self, ModelError> {
        use_plain_executor();
        let mut module = CModule::load_data_on_device(&mut Cursor::new(bytes), device)
            .map_err(ModelError::from)
            .map_err(|error| {
                let reason = format!("{error} (save the module with torch.jit.save)");
                ModelError::format(path, reason)
            })?;
        module.f_set_eval()?;
        Ok(Self { module })
    }
}

impl Network for TorchScript {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError> {
        let input = IValue::Tensor(rgb.f_to_kind(Kind::Float)?.f_contiguous()?);
        let output = self.module.forward_is(&[input])?;
        let IValue::Tuple(values) = output else {
            return Err(not_a_tuple());
        };
        let mut maps = values.into_iter().map(|value| match value {
            IValue::Tensor(tensor) => Ok(tensor),
            _ => Err(not_a_tuple()),
        });
        let (Some(np), Some(hv), tp, None) = (maps.next(), maps.next(), maps.next(), maps.next())
        else {
            return Err(not_a_tuple());
        };
        Ok(RawMaps {
            np: np?,
            hv: hv?,
            tp: tp.transpose()?,
        })
    }
}

fn not_a_tuple() -> ModelError {
    ModelError::output(
        "a torchscript module must return the tuple of tensors (np, hv) or (np, hv, tp)",
    )
}

fn use_plain_executor() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error leaves libtorch's default: slower first patches, but the same maps.
        let _ = tch::jit::f_set_profiling_mode(false);
        let _ = tch::jit::f_set_tensor_expr_fuser_enabled(false);
    });
}
