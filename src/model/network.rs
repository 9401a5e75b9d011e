//! stub until merge
use super::ModelError;
use tch::Tensor;
pub trait Network: Send {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError>;
}
pub struct RawMaps {
    pub np: Tensor,
    pub hv: Tensor,
    pub tp: Option<Tensor>,
}
