//! The state of a training on disk: `train.safetensors`, and its configuration `train.toml`.
//!
//! In: weights, optimizer, the best validation. Out: files that are complete or absent. A
//! checkpoint of another configuration is refused, never overwritten.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use super::TrainError;
use super::config::TrainConfig;
use super::optimizer::Optimizer;
use crate::store::atomic;

const STATE: &str = "train.safetensors";
const CONFIG: &str = "train.toml";

/// The best validation so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Best {
    pub pq: Option<f64>,
    /// Number of validations since then.
    pub stale: u64,
}

/// Whether `out` holds a checkpoint.
pub fn exists(out: &Path) -> bool {
    out.join(STATE).exists()
}

/// Removes the checkpoint of `out` and its log.
pub fn remove(out: &Path) -> Result<(), TrainError> {
    for name in [STATE, CONFIG, "train.jsonl"] {
        let path = out.join(name);
        if path.exists() {
            std::fs::remove_file(&path).map_err(|e| TrainError::file(&path, e))?;
        }
    }
    Ok(())
}

/// Writes the configuration of the training in `out`.
///
/// # Errors
/// A checkpoint of another configuration; the message gives the first line that differs.
pub fn claim(out: &Path, config: &TrainConfig) -> Result<(), TrainError> {
    let path = out.join(CONFIG);
    let text = toml::to_string(config).map_err(|e| TrainError::file(&path, e))?;
    if exists(out)
        && let Ok(old) = std::fs::read_to_string(&path)
        && old != text
    {
        let differing = old
            .lines()
            .zip(text.lines())
            .find(|(a, b)| a != b)
            .map_or("its length".to_string(), |(a, b)| format!("{a}, now {b}"));
        return Err(TrainError::file(
            out,
            format!(
                "holds a training with another configuration ({differing}): choose another folder, or --restart"
            ),
        ));
    }
    atomic::write_bytes(&path, text.as_bytes()).map_err(|e| TrainError::file(&path, e))
}

/// Writes the checkpoint.
pub fn save(
    out: &Path,
    weights: &BTreeMap<String, Tensor>,
    optimizer: &Optimizer,
    best: Best,
) -> Result<(), TrainError> {
    let mut all: Vec<(String, Tensor)> = vec![
        ("step".into(), Tensor::from(optimizer.step as i64)),
        ("stale".into(), Tensor::from(best.stale as i64)),
    ];
    if let Some(pq) = best.pq {
        all.push(("best_pq".into(), Tensor::from(pq)));
    }
    let groups = [
        ("w", weights),
        ("m", &optimizer.m),
        ("v", &optimizer.v),
        ("a", &optimizer.average),
    ];
    for (prefix, tensors) in groups {
        all.extend(
            tensors
                .iter()
                .map(|(n, t)| (format!("{prefix}:{n}"), t.detach())),
        );
    }
    write_tensors(&all, &out.join(STATE))
}

/// Reads the checkpoint of `out` into `weights` and an `optimizer` that has not stepped.
pub fn resume(
    out: &Path,
    weights: &mut BTreeMap<String, Tensor>,
    mut optimizer: Optimizer,
) -> Result<(Optimizer, Best), TrainError> {
    let path = out.join(STATE);
    let mut best = Best::default();
    let tensors = Tensor::read_safetensors(&path).map_err(|e| TrainError::file(&path, e))?;
    for (name, tensor) in tensors {
        let place = match name.split_once(':') {
            None if name == "step" => {
                optimizer.step = tensor.int64_value(&[]) as u64;
                continue;
            }
            None if name == "stale" => {
                best.stale = tensor.int64_value(&[]) as u64;
                continue;
            }
            None if name == "best_pq" => {
                best.pq = Some(tensor.double_value(&[]));
                continue;
            }
            Some(("w", n)) => weights.get_mut(n),
            Some(("m", n)) => optimizer.m.get_mut(n),
            Some(("v", n)) => optimizer.v.get_mut(n),
            Some(("a", n)) => optimizer.average.get_mut(n),
            _ => None,
        };
        match place {
            Some(slot) if slot.size() == tensor.size() => *slot = tensor,
            _ => {
                return Err(TrainError::file(
                    &path,
                    format!("{name} does not belong to this network: --restart begins anew"),
                ));
            }
        }
    }
    tracing::info!(
        "going on from step {} of {}",
        optimizer.step,
        path.display()
    );
    Ok((optimizer, best))
}

/// Writes tensors to `path`, all or nothing.
pub fn write_tensors(tensors: &[(String, Tensor)], path: &Path) -> Result<(), TrainError> {
    let part = path.with_extension("part");
    let contiguous: Vec<_> = tensors
        .iter()
        .map(|(n, t)| (n, t.to_device(tch::Device::Cpu).contiguous()))
        .collect();
    Tensor::write_safetensors(&contiguous, &part)?;
    std::fs::rename(&part, path).map_err(|e| TrainError::file(path, e))
}
