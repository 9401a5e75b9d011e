//! Weights files.
//!
//! In: the bytes of a safetensors file, and the parameters that an architecture wants. Out: named
//! f32 tensors on the CPU, or what is wrong by name. A hostile file gives an error: it never causes
//! a panic or takes more memory than its size allows.
//!
//! A tensor in 8 bits, `NAME`, has a factor per output channel beside it, `NAME.scale`: the value is
//! their product.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::error::ModelError;

/// Parameters by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Ending of the name of a tensor's factors.
const SCALE: &str = ".scale";
/// Largest number of a tensor in 8 bits.
const MOST_IN_8_BITS: f64 = 127.0;

/// Most names that are listed for one kind of problem.
const MAX_LISTED: usize = 5;

/// Reads a safetensors file into f32 tensors sorted by name.
///
/// f16, bf16, f64 and scaled 8-bit storage is converted; PyTorch's `num_batches_tracked` counters are left out.
/// `path` is for messages only.
///
/// # Errors
/// `ModelError::Format` for a damaged file, another kind of storage, or a NaN or infinity.
pub fn read_safetensors(bytes: &[u8], path: &Path) -> Result<Vec<(String, Tensor)>, ModelError> {
    let format_error = |reason: String| ModelError::format(path, reason);
    let file = SafeTensors::deserialize(bytes).map_err(|error| format_error(error.to_string()))?;
    let all: BTreeMap<String, TensorView> = file.tensors().into_iter().collect();
    let is_in_8_bits = |name: &str| all.get(name).is_some_and(|t| t.dtype() == Dtype::I8);
    let mut tensors = Vec::new();
    for (name, view) in &all {
        let scales = name.strip_suffix(SCALE).is_some_and(is_in_8_bits);
        if scales || name.ends_with("num_batches_tracked") {
            continue;
        }
        let mut tensor = read_tensor(name, view).map_err(format_error)?;
        if view.dtype() == Dtype::I8 {
            let scale = all.get(&format!("{name}{SCALE}"));
            tensor = scaled(name, &tensor, scale).map_err(format_error)?;
        }
        if !all_finite(&tensor)? {
            return Err(format_error(format!("tensor {name} holds NaN or infinity")));
        }
        tensors.push((name.clone(), tensor));
    }
    Ok(tensors)
}

/// The numbers of one tensor of a file as f32.
fn read_tensor(name: &str, view: &TensorView) -> Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        Dtype::I8 => Kind::Int8,
        other => {
            return Err(format!(
                "tensor {name} is stored as {other:?}, not as floats"
            ));
        }
    };
    let shape = shape_of(view.shape())
        .ok_or_else(|| format!("tensor {name} has the shape {:?}", view.shape()))?;
    let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
    let floats = tensor.and_then(|t| t.f_to_kind(Kind::Float));
    floats.map_err(|e| format!("tensor {name}: {e}"))
}

/// The tensor `name` in 8 bits, times the factor of each output channel.
fn scaled(name: &str, tensor: &Tensor, scale: Option<&TensorView>) -> Result<Tensor, String> {
    let scale =
        scale.ok_or_else(|| format!("tensor {name} is stored as I8 without {name}{SCALE}"))?;
    let scale = read_tensor(&format!("{name}{SCALE}"), scale)?;
    let channels = tensor.size().first().copied();
    if scale.size().as_slice() != channels.as_slice() {
        return Err(format!(
            "tensor {name}{SCALE} has the shape {:?}, not one factor per channel of {name}",
            scale.size()
        ));
    }
    let mut per_channel = vec![1; tensor.dim()];
    per_channel[0] = -1;
    Ok(tensor * scale.view(per_channel.as_slice()))
}

/// Tensors for a file of half the size of f16: weights `[out, ...]` in 8 bits with the factor of
/// each output channel, biases in f16.
pub fn in_8_bits(tensors: &Tensors) -> Vec<(String, Tensor)> {
    let store = |(name, tensor): (&String, &Tensor)| {
        if tensor.dim() < 2 {
            return vec![(name.clone(), tensor.to_kind(Kind::Half))];
        }
        let rows = tensor.flatten(1, -1);
        let largest = rows.abs().amax([1i64].as_slice(), false);
        let scale = (largest / MOST_IN_8_BITS).clamp_min(f64::from(f32::MIN_POSITIVE));
        let stored = (rows / scale.unsqueeze(1)).round().to_kind(Kind::Int8);
        vec![
            (name.clone(), stored.view_as(tensor)),
            (format!("{name}{SCALE}"), scale),
        ]
    };
    tensors.iter().flat_map(store).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a file that holds `tensors`.
    fn file_of(tensors: &[(String, Tensor)]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        Tensor::write_safetensors(tensors, &path).unwrap();
        std::fs::read(&path).unwrap()
    }

    fn read(tensors: &[(String, Tensor)]) -> Result<Tensors, String> {
        let found = read_safetensors(&file_of(tensors), Path::new("x"));
        found
            .map(|t| t.into_iter().collect())
            .map_err(|e| e.to_string())
    }

    fn named(name: &str, tensor: Tensor) -> (String, Tensor) {
        (name.to_string(), tensor)
    }

    #[test]
    fn eight_bits_keep_a_weight_to_half_a_step_of_its_channel() {
        // The largest of each channel is 2, 0.5 and 0: steps of 2 / 127, 0.5 / 127 and nothing.
        let weight = [2.0f32, -0.7, 0.01, 0.5, -0.5, 0.123, 0.0, 0.0, 0.0];
        let weight = Tensor::from_slice(&weight).view([3, 3, 1, 1]);
        let bias = Tensor::from_slice(&[0.25f32, 1.0, -3.0]);
        let tensors = Tensors::from([
            named("a.weight", weight.shallow_clone()),
            named("a.bias", bias.shallow_clone()),
        ]);
        let stored = in_8_bits(&tensors);
        assert_eq!(stored.len(), 3);
        let found = read(&stored).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a.bias", "a.weight"]);
        assert_eq!(found["a.bias"], bias);
        let apart: Vec<f32> =
            Vec::try_from((&found["a.weight"] - weight).abs().flatten(0, -1)).unwrap();
        for (i, apart) in apart.iter().enumerate() {
            let step = [2.0f32, 0.5, 0.0][i / 3] / 127.0;
            assert!(*apart <= 0.5 * step + 1e-7, "{i}: {apart}");
        }
        // What was rounded once is stored exactly.
        assert!(read(&in_8_bits(&found)).unwrap()["a.weight"].allclose(
            &found["a.weight"],
            1e-6,
            0.0,
            false
        ));
    }

    #[test]
    fn eight_bits_without_factors_or_with_wrong_ones_are_refused() {
        let bytes = || Tensor::from_slice(&[1i8, 2, 3, 4]).view([2, 2]);
        let text = read(&[named("w", bytes())]).unwrap_err();
        assert!(text.contains("without w.scale"), "{text}");
        let three = Tensor::from_slice(&[1.0f32, 2.0, 3.0]);
        let text = read(&[named("w", bytes()), named("w.scale", three)]).unwrap_err();
        assert!(text.contains("one factor per channel"), "{text}");
        let nan = Tensor::from_slice(&[1.0f32, f32::NAN]);
        let text = read(&[named("w", bytes()), named("w.scale", nan)]).unwrap_err();
        assert!(text.contains("NaN"), "{text}");
        // The ending alone makes no factors.
        let alone = read(&[named("w.scale", Tensor::from_slice(&[2.0f32]))]).unwrap();
        assert_eq!(alone.len(), 1);
    }
}
