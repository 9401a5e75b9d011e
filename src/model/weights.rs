//! Weights files.
//!
//! In: the bytes of a safetensors file, and the parameters that an architecture wants. Out: named
//! f32 tensors on the CPU, or what is wrong by name. A hostile file gives an error: it never causes
//! a panic or takes more memory than its size allows.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::error::ModelError;

/// Parameters by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Most names that are listed for one kind of problem.
const MAX_LISTED: usize = 5;

/// Reads a safetensors file into f32 tensors sorted by name.
///
/// f16, bf16 and f64 storage is converted; PyTorch's `num_batches_tracked` counters are left out.
/// `path` is for messages only.
///
/// # Errors
/// `ModelError::Format` for a damaged file, another kind of storage, or a NaN or infinity.
pub fn read_safetensors(bytes: &[u8], path: &Path) -> Result<Vec<(String, Tensor)>, ModelError> {
    let format_error = |reason: String| ModelError::format(path, reason);
    let file = SafeTensors::deserialize(bytes).map_err(|error| format_error(error.to_string()))?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        if name.ends_with("num_batches_tracked") {
            continue;
        }
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            other => {
                return Err(format_error(format!(
                    "tensor {name} is stored as {other:?}, not as floats"
                )));
            }
        };
        let shape = shape_of(view.shape()).ok_or_else(|| {
            format_error(format!("tensor {name} has the shape {:?}", view.shape()))
        })?;
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?.f_to_kind(Kind::Float)?;
        if !all_finite(&tensor)? {
            return Err(format_error(format!("tensor {name} holds NaN or infinity")));
        }
        tensors.push((name, tensor));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(tensors)
}

/// A shape as torch takes it; `None` for more than 8 axes, an empty axis or a size beyond `i64`.
fn shape_of(shape: &[usize]) -> Option<Vec<i64>> {
    if shape.len() > 8 {
        return None;
    }
    shape
        .iter()
        .map(|&n| i64::try_from(n).ok().filter(|&n| n > 0))
        .collect()
}

fn all_finite(tensor: &Tensor) -> Result<bool, ModelError> {
    Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}

/// Compares names and shapes with what the architecture wants.
///
/// # Errors
/// `ModelError::Parameters` with at most five names per kind of problem.
pub fn check_parameters(
    tensors: &Tensors,
    wanted: &[(String, Vec<i64>)],
    architecture: &'static str,
    path: &Path,
) -> Result<(), ModelError> {
    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    for (name, shape) in wanted {
        match tensors.get(name) {
            None => missing.push(name.clone()),
            Some(tensor) if tensor.size() != *shape => {
                misshapen.push(format!("{name} is {:?}, wanted {shape:?}", tensor.size()));
            }
            Some(_) => {}
        }
    }
    let known: std::collections::BTreeSet<&str> =
        wanted.iter().map(|(name, _)| name.as_str()).collect();
    let unexpected: Vec<String> = tensors
        .keys()
        .filter(|name| !known.contains(name.as_str()))
        .cloned()
        .collect();
    let problems: Vec<String> = [
        ("missing", missing),
        ("of the wrong shape", misshapen),
        ("unexpected", unexpected),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(problem, names)| list_names(problem, &names))
    .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(ModelError::Parameters {
        path: path.to_path_buf(),
        architecture,
        problems: format!(
            "{}: check architecture and types in model.toml against the network \
             the weights were trained with",
            problems.join("; ")
        ),
    })
}

fn list_names(problem: &str, names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(MAX_LISTED).map(String::as_str).collect();
    let rest = names.len().saturating_sub(MAX_LISTED);
    let more = if rest > 0 {
        format!(", and {rest} more")
    } else {
        String::new()
    };
    format!("{} {problem}: {}{more}", names.len(), first.join(", "))
}
