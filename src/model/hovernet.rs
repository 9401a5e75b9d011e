//! HoVer-Net, `fast` and `original` (Graham et al. 2019, doi:10.1016/j.media.2019.101563).
//!
//! In: the parameters of a hover_net checkpoint under their own names, u8 RGB. Out: the raw maps of
//! the np, hv and tp branches. Never trains.

#[cfg(feature = "torch")]
mod network;
#[cfg(feature = "torch")]
mod parameters;

#[cfg(feature = "torch")]
pub use network::HoverNet;
#[cfg(feature = "torch")]
pub(crate) use network::same_padding;
#[cfg(feature = "torch")]
pub use parameters::{WIDTH, own_names, parameters, width_of};

/// The two published geometries. Sides grow from the natural input in steps of 8 px.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 256 px in, 164 out; 3 x 3 in the decoders.
    Fast,
    /// 270 px in, 80 out; 5 x 5 in the decoders.
    Original,
}

impl Mode {
    /// Side of the natural input, px.
    pub const fn patch_in_px(self) -> i32 {
        match self {
            Mode::Fast => 256,
            Mode::Original => 270,
        }
    }

    /// Side of the output for an input side, px.
    pub const fn output_px(self, input_px: i32) -> i32 {
        match self {
            Mode::Fast => input_px - 92,
            Mode::Original => input_px - 190,
        }
    }
}
