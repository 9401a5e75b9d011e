//! The mean of the weights of two trained models.
//!
//! In: two model folders of one architecture with the same types. Out: the tensors of the mean. If
//! the second training began from the first, or both from a third, the mean errs less than either
//! (Wortsman et al. 2022, model soups). Never averages models of different shapes, and does not
//! score the mean: `eval` does.

use tch::Tensor;

use super::TrainError;
use super::join::type_names;
use crate::model::ModelFolder;

/// `(1 - share) * first + share * second` of every tensor, in f32.
///
/// # Errors
/// Architectures, scales, types, tensors or second networks that differ.
pub fn average_models(
    first: &ModelFolder,
    second: &ModelFolder,
    share: f64,
) -> Result<Vec<(String, Tensor)>, TrainError> {
    let differs = |what: &str| TrainError::Config(format!("the two models differ in their {what}"));
    let (a, b) = (&first.spec, &second.spec);
    if a.architecture != b.architecture {
        return Err(differs("architectures"));
    }
    if a.mpp != b.mpp {
        return Err(differs("mpp"));
    }
    if type_names(a) != type_names(b) {
        return Err(differs("types"));
    }
    // The second network goes along as it is, so it must be one and the same.
    if a.types_from != b.types_from {
        return Err(differs("second network for the types, [types_from]"));
    }
    let (Some(a), Some(b)) = (first.tensors(), second.tensors()) else {
        return Err(TrainError::Config("a model has no weights".into()));
    };
    if a.keys().ne(b.keys()) {
        return Err(differs("tensors"));
    }
    let mean = |((name, a), b): ((&String, &Tensor), &Tensor)| {
        (name.clone(), a * (1.0 - share) + b * share)
    };
    Ok(a.iter().zip(b.values()).map(mean).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{layer, lite};

    fn lite_model(value: f32, types: &[&str]) -> ModelFolder {
        let all = layer::parameters(&lite::layers(types.len() as i64));
        let options = (tch::Kind::Float, tch::Device::Cpu);
        let named = |(name, shape): (String, Vec<i64>)| {
            (name, Tensor::full(&shape[..], f64::from(value), options))
        };
        let tensors: Vec<_> = all.into_iter().map(named).collect();
        let folder = tempfile::tempdir().unwrap();
        let listed: String = ["background"]
            .iter()
            .chain(types)
            .map(|name| format!("[[types]]\nname = \"{name}\"\ncolor = [1, 2, 3]\n"))
            .collect();
        let text = format!(
            "name = \"m\"\narchitecture = \"hovernet-lite\"\nmpp = 0.25\n\
             patch_in_px = 768\npatch_out_px = 704\nweights = \"model.safetensors\"\n\
             sha256 = \"{}\"\nlicence = \"\"\ncitation = \"\"\ntraining_data = \"\"\n{listed}",
            "0".repeat(64)
        );
        let spec = crate::model::ModelSpec::parse(&text, folder.path()).unwrap();
        crate::train::package::write_folder(folder.path(), spec, &tensors, tch::Kind::Half)
            .unwrap();
        ModelFolder::open(folder.path()).unwrap()
    }

    #[test]
    fn the_mean_is_weighted_by_the_share() {
        let (first, second) = (lite_model(1.0, &["a", "b"]), lite_model(3.0, &["a", "b"]));
        let found = average_models(&first, &second, 0.75).unwrap();
        assert_eq!(found.len(), first.tensors().unwrap().len());
        for (name, t) in found {
            assert_eq!(t.min().double_value(&[]), 2.5, "{name}");
            assert_eq!(t.max().double_value(&[]), 2.5, "{name}");
        }
    }

    #[test]
    fn models_with_different_types_are_refused() {
        let error =
            average_models(&lite_model(1.0, &["a"]), &lite_model(1.0, &["b"]), 0.5).unwrap_err();
        assert!(error.to_string().contains("types"), "{error}");
    }
}
