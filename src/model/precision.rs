//! The arithmetic that a network computes in.
//!
//! In: what was asked for and the device. Out: what that comes to, which is part of a run's identity. Never changes the
//! arithmetic of anything but the network.

use serde::Serialize;

use super::device::Device;
use super::error::ModelError;
use super::spec::Architecture;

/// Arithmetic of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 on a CPU, tf32 on a GPU
    Auto,
    /// 32-bit floats throughout
    F32,
    /// 32-bit floats whose products keep 10 bits of the fraction: NVIDIA GPUs
    Tf32,
    /// 16-bit floats: 5 bits of exponent, 10 of fraction
    F16,
    /// 16-bit floats: 8 bits of exponent, 7 of fraction
    Bf16,
}

impl Precision {
    /// As the command line and the identity of a run write it.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }

    /// What this comes to for a network of `architecture` on `device`; never [`Precision::Auto`].
    ///
    /// # Errors
    /// [`ModelError::Input`] for what the device or the architecture cannot do, with what it can.
    pub fn of(self, architecture: Architecture, device: Device) -> Result<Self, ModelError> {
        let refuse = |why: &str| {
            let asked = self.name();
            Err(ModelError::input(format!("--precision {asked}: {why}")))
        };
        let on_cpu = device == Device::Cpu;
        match (architecture, self) {
            (Architecture::Analytic, _) => Ok(Precision::F32),
            (_, Precision::Tf32) if on_cpu => {
                refuse("only an NVIDIA GPU has it: take f32 or bf16 on a CPU")
            }
            // A script converts its own numbers; libtorch lets its convolutions use TF32 on a GPU.
            (Architecture::Torchscript, Precision::F16 | Precision::Bf16) => {
                refuse("a torchscript model has the arithmetic that it was saved with: take auto")
            }
            (Architecture::Torchscript, Precision::F32) if !on_cpu => refuse(
                "a torchscript model uses TF32 in its convolutions on a GPU: take auto, or --device cpu",
            ),
            // oneDNN has it for very few CPUs, and stops elsewhere.
            (_, Precision::F16) if on_cpu => refuse("a CPU takes f32 or bf16"),
            (_, Precision::Auto) if on_cpu => Ok(Precision::F32),
            (_, Precision::Auto) => Ok(Precision::Tf32),
            _ => Ok(self),
        }
    }

    /// The numbers that weights and activations are kept in.
    #[cfg(feature = "torch")]
    pub(super) const fn kind(self) -> tch::Kind {
        match self {
            Precision::Auto | Precision::F32 | Precision::Tf32 => tch::Kind::Float,
            Precision::F16 => tch::Kind::Half,
            Precision::Bf16 => tch::Kind::BFloat16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_what_the_device_is_good_at() {
        let (cpu, gpu) = (Device::Cpu, Device::Cuda(0));
        let lite = |precision: Precision, device| precision.of(Architecture::HovernetLite, device);
        assert_eq!(lite(Precision::Auto, cpu).unwrap(), Precision::F32);
        assert_eq!(lite(Precision::Auto, gpu).unwrap(), Precision::Tf32);
        for asked in [Precision::F32, Precision::Bf16] {
            assert_eq!(lite(asked, cpu).unwrap(), asked);
        }
        for asked in [Precision::F32, Precision::F16, Precision::Bf16] {
            assert_eq!(lite(asked, gpu).unwrap(), asked);
        }
        for asked in [Precision::Tf32, Precision::F16] {
            let refused = lite(asked, cpu).unwrap_err().to_string();
            assert!(refused.contains("f32 or bf16"), "{refused}");
        }
    }

    #[test]
    fn a_script_keeps_its_own() {
        let script = |precision: Precision, device| {
            precision
                .of(Architecture::Torchscript, device)
                .map_err(|e| e.to_string())
        };
        assert_eq!(script(Precision::Auto, Device::Cpu), Ok(Precision::F32));
        assert_eq!(script(Precision::F32, Device::Cpu), Ok(Precision::F32));
        assert_eq!(
            script(Precision::Auto, Device::Cuda(0)),
            Ok(Precision::Tf32)
        );
        for (asked, device) in [
            (Precision::F16, Device::Cpu),
            (Precision::Bf16, Device::Cuda(0)),
            (Precision::F32, Device::Cuda(0)),
        ] {
            assert!(script(asked, device).unwrap_err().contains("take auto"));
        }
    }
}
