//! hover_net's checkpoints as models.
//!
//! In: a `.tar`, `.pth` or `.pt` that torch.save wrote. Out: its tensors under hover_net's own
//! names, and a [`ModelSpec`] inferred from their names and shapes. Published files are known by
//! their file names; the licence of others is whatever the user says.

use std::path::Path;

use tch::Tensor;

use super::error::ModelError;
use super::hovernet;
use super::spec::{Architecture, ModelSpec, TYPE_COLOURS, TypeInfo};
use super::torch_file;
use super::weights::Tensors;
use crate::nuclei::PostprocParams;

/// Whether a path is a checkpoint rather than a model folder.
pub fn is_checkpoint(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    matches!(extension, Some("tar" | "pth" | "pt")) && path.is_file()
}

/// Types of a data set by id, background first.
type Names = &'static [(&'static str, [u8; 3])];

const PANNUKE: Names = &[
    ("background", [0, 0, 0]),
    ("neoplastic", [213, 94, 0]),
    ("inflammatory", [0, 158, 115]),
    ("connective", [0, 114, 178]),
    ("necrotic", [240, 200, 60]),
    ("non-neoplastic", [204, 121, 167]),
];
const MONUSAC: Names = &[
    ("background", [0, 0, 0]),
    ("epithelial", [213, 94, 0]),
    ("lymphocyte", [0, 158, 115]),
    ("macrophage", [0, 114, 178]),
    ("neutrophil", [240, 200, 60]),
];
const CONSEP: Names = &[
    ("background", [0, 0, 0]),
    ("miscellaneous", [240, 200, 60]),
    ("inflammatory", [0, 158, 115]),
    ("epithelial", [213, 94, 0]),
    ("spindle", [0, 114, 178]),
];

/// What hover_net's authors published: part of the file name, data set, licence of the data (and so
/// of the weights), types.
const PUBLISHED: [(&str, &str, &str, Names); 5] = [
    ("pannuke", "PanNuke", "CC BY-NC-SA 4.0", PANNUKE),
    ("monusac", "MoNuSAC", "CC BY-NC-SA 4.0", MONUSAC),
    ("consep", "CoNSeP", "Apache-2.0", CONSEP),
    ("kumar", "Kumar", "CC BY-NC-SA 4.0", &[]),
    ("cpm17", "CPM17", "", &[]),
];

/// Reads the checkpoint at `path`.
///
/// # Errors
/// A file that torch.save did not write, content that is not allowed, tensors of another network.
pub fn read(path: &Path, licence: Option<&str>) -> Result<(ModelSpec, Tensors), ModelError> {
    let bytes = std::fs::read(path).map_err(|e| ModelError::read(path, e))?;
    let arrays = torch_file::read(&bytes).map_err(|reason| ModelError::format(path, reason))?;
    let tensors = arrays
        .into_iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, array)| {
            let tensor = Tensor::from_slice(&array.values).f_view(&array.shape[..]);
            let shaped = tensor.map_err(|e| ModelError::format(path, format!("{name}: {e}")))?;
            Ok((name, shaped))
        })
        .collect::<Result<_, ModelError>>()?;
    let tensors = hovernet::own_names(tensors);
    let stem = path
        .file_stem()
        .map_or("model".into(), |s| s.to_string_lossy().into_owned());
    let spec =
        infer_spec(&tensors, &stem, licence).map_err(|reason| ModelError::format(path, reason))?;
    Ok((spec, tensors))
}

/// Infers model.toml from a network's tensors; `stem` is the checkpoint's name.
fn infer_spec(tensors: &Tensors, stem: &str, licence: Option<&str>) -> Result<ModelSpec, String> {
    let size = |name: &str| tensors.get(name).map(|t| t.size());
    let kernel = size("decoder.np.u3.conva.weight").and_then(|s| s.last().copied());
    let (architecture, patch_in_px, patch_out_px) = match kernel {
        Some(3) => (Architecture::HovernetFast, 256, 164),
        Some(5) => (Architecture::HovernetOriginal, 270, 80),
        _ => {
            return Err(
                "has no decoder.np.u3.conva.weight of 3 x 3 or 5 x 5: not a HoVer-Net".into(),
            );
        }
    };
    let types = match size("decoder.tp.u0.conv.bias").as_deref() {
        None => 0,
        Some([types @ 1..=256]) => *types as usize,
        Some(shape) => {
            return Err(format!(
                "its decoder.tp.u0.conv.bias has the shape {shape:?}, not one number per type"
            ));
        }
    };
    let lower = stem.to_ascii_lowercase();
    let published = PUBLISHED
        .iter()
        .find(|p| lower.contains("hovernet") && lower.contains(p.0));
    let known = published.map(|p| p.3).filter(|names| names.len() == types);
    let types = match known {
        Some(names) => names
            .iter()
            .map(|(name, color)| TypeInfo {
                name: name.to_string(),
                color: *color,
            })
            .collect(),
        None => (0..types).map(numbered_type).collect(),
    };
    Ok(ModelSpec {
        name: stem.to_string(),
        architecture,
        mpp: 0.25,
        patch_in_px,
        patch_out_px,
        types,
        postproc: PostprocParams::default(),
        weights: Some("model.safetensors".into()),
        sha256: None,
        types_from: None,
        licence: licence
            .or(published.map(|p| p.2))
            .unwrap_or_default()
            .to_string(),
        citation: match published {
            Some(_) => "Graham et al. 2019, HoVer-Net, doi:10.1016/j.media.2019.101563".into(),
            None => String::new(),
        },
        training_data: published.map_or(String::new(), |p| p.1.to_string()),
        scores: toml::Table::new(),
    })
}

/// A type whose name nobody knows.
fn numbered_type(id: usize) -> TypeInfo {
    let color = TYPE_COLOURS[id % TYPE_COLOURS.len()];
    match id {
        0 => TypeInfo {
            name: "background".into(),
            color: [0, 0, 0],
        },
        _ => TypeInfo {
            name: format!("type {id}"),
            color,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hovernet::{Mode, parameters};
    use tch::{Device, Kind};

    fn network(mode: Mode, types: i64) -> Tensors {
        parameters(mode, types, 8)
            .into_iter()
            .map(|(name, shape)| (name, Tensor::zeros(shape, (Kind::Float, Device::Cpu))))
            .collect()
    }

    #[test]
    fn mode_types_and_licence_are_inferred() {
        let of = |mode, types, stem: &str, licence| {
            infer_spec(&network(mode, types), stem, licence).unwrap()
        };
        let pannuke = of(Mode::Fast, 6, "hovernet_fast_pannuke_type_tf2pytorch", None);
        assert_eq!(pannuke.architecture, Architecture::HovernetFast);
        assert_eq!(
            (pannuke.types.len(), pannuke.types[1].name.as_str()),
            (6, "neoplastic")
        );
        assert_eq!(pannuke.licence, "CC BY-NC-SA 4.0");
        let own = of(Mode::Original, 3, "lab", Some("ours"));
        assert_eq!((own.patch_in_px, own.patch_out_px), (270, 80));
        assert_eq!(
            (own.types[2].name.as_str(), own.licence.as_str()),
            ("type 2", "ours")
        );
        assert!(of(Mode::Fast, 0, "seg", None).types.is_empty());
        assert!(
            infer_spec(&Tensors::new(), "x", None)
                .unwrap_err()
                .contains("not a HoVer-Net")
        );
    }
}
