//! Outlines of one model with types of another.
//!
//! In: two model folders with the same types. Out: the second as a [`TypesFile`], which a folder of
//! the first takes along. Never trains and never scores: `eval` does.

use super::TrainError;
use super::package::{TYPES_WEIGHTS, write_weights};
use crate::model::design::Design;
use crate::model::weights::in_8_bits;
use crate::model::{ModelFolder, ModelSpec, TypesFile, TypesFrom};

/// The network of `types` as the second one of `outlines`: its probabilities count for `share`. Its
/// weights are stored in 8 bits, half as large as in f16: types are decided by means over a nucleus.
///
/// # Errors
/// Scales or types that differ, a network that is not our own, or a model that has a second network
/// already.
pub fn types_file(
    outlines: &ModelFolder,
    types: &ModelFolder,
    share: f64,
) -> Result<TypesFile, TrainError> {
    let (a, b) = (&outlines.spec, &types.spec);
    if a.mpp != b.mpp {
        return Err(TrainError::Config(format!(
            "{} is for {} µm/px, {} for {} µm/px: join models of one scale",
            a.name, a.mpp, b.name, b.mpp
        )));
    }
    if type_names(a) != type_names(b) || a.types.is_empty() {
        return Err(TrainError::Config(format!(
            "{} and {} must have the same types in the same order",
            a.name, b.name
        )));
    }
    let refuse =
        |spec: &ModelSpec, why: &str| Err(TrainError::Config(format!("{} {why}", spec.name)));
    for spec in [a, b] {
        if Design::of(spec.architecture).is_none() {
            return refuse(
                spec,
                "is no hovernet-lite or hovernet-wide: only these can be joined",
            );
        }
        if spec.types_from.is_some() {
            return refuse(
                spec,
                "has a second network already: join the two that it is made of",
            );
        }
    }
    let Some(tensors) = types.tensors() else {
        return refuse(b, "has no weights");
    };
    let stored = in_8_bits(tensors);
    let scratch = tempfile::tempdir().map_err(|e| TrainError::file(&types.path, e))?;
    let path = scratch.path().join(TYPES_WEIGHTS);
    let sha256 = write_weights(&path, &stored)?;
    let bytes = std::fs::read(&path).map_err(|e| TrainError::file(&path, e))?;
    let said = TypesFrom {
        model: b.name.clone(),
        architecture: b.architecture,
        weights: TYPES_WEIGHTS.into(),
        sha256,
        share,
        temperature: 1.0,
    };
    Ok(TypesFile { said, bytes })
}

/// Names of a model's types in their order.
pub fn type_names(spec: &ModelSpec) -> Vec<&str> {
    spec.types.iter().map(|t| t.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::{Rgb, RgbImage};
    use tch::Kind;

    use super::*;
    use crate::model::weights::read_safetensors;
    use crate::model::{Architecture, Device, layer, lite};
    use crate::prediction::PredictionMap;
    use crate::train::config::TrainConfig;
    use crate::train::package::{self, write_combined, write_folder};
    use crate::train::tune::Tuned;

    const SIDE_PX: u32 = 64;

    fn random_model(seed: u64, mpp: f64, types: &[&str]) -> ModelFolder {
        let mut rng = fastrand::Rng::with_seed(seed);
        let tensor = |(name, shape): (String, Vec<i64>)| {
            let drawn = crate::train::initial::draw_normal(&shape, 0.1, &mut rng);
            (name, drawn)
        };
        let all = layer::parameters(&lite::layers(types.len() as i64 - 1));
        let tensors: Vec<_> = all.into_iter().map(tensor).collect();
        let listed: String = types
            .iter()
            .map(|name| format!("[[types]]\nname = \"{name}\"\ncolor = [1, 2, 3]\n"))
            .collect();
        let text = format!(
            "name = \"m{seed}\"\narchitecture = \"hovernet-lite\"\nmpp = {mpp}\npatch_in_px = {SIDE_PX}\n\
             patch_out_px = {SIDE_PX}\nweights = \"model.safetensors\"\nsha256 = \"{}\"\n{listed}",
            "0".repeat(64)
        );
        let scratch = tempfile::tempdir().unwrap();
        let spec = ModelSpec::parse(&text, scratch.path()).unwrap();
        write_folder(scratch.path(), spec, &tensors, Kind::Half).unwrap();
        ModelFolder::open(scratch.path()).unwrap()
    }

    const TYPES: [&str; 3] = ["background", "a", "b"];

    /// Two models, and the folder of the first with types of the second.
    fn joined(share: f64) -> (ModelFolder, ModelFolder, tempfile::TempDir) {
        let [first, second] = [1, 2].map(|seed| random_model(seed, 0.25, &TYPES));
        let file = types_file(&first, &second, share).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tensors = first.tensors().unwrap().iter();
        let tensors: Vec<_> = tensors
            .map(|(n, t)| (n.clone(), t.shallow_clone()))
            .collect();
        write_combined(folder.path(), first.spec.clone(), &tensors, Some(&file)).unwrap();
        (first, second, folder)
    }

    fn patch() -> RgbImage {
        let mut rng = fastrand::Rng::with_seed(3);
        RgbImage::from_fn(SIDE_PX, SIDE_PX, |_, _| {
            Rgb([rng.u8(..), rng.u8(..), rng.u8(..)])
        })
    }

    fn predict(model: &ModelFolder) -> PredictionMap {
        let maps = model
            .load(Device::Cpu)
            .unwrap()
            .worker()
            .predict(&[patch()]);
        maps.unwrap().remove(0)
    }

    fn message<T>(result: Result<T, impl ToString>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn outlines_are_the_firsts_and_types_the_weighted_mean() {
        let (first, second, folder) = joined(0.25);
        let model = ModelFolder::open(folder.path()).unwrap();
        // The second's weights are rounded to 8 bits: a model of one network with the same weights.
        let bytes = &model.types_file().unwrap().bytes;
        let stored = read_safetensors(bytes, Path::new("x")).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        write_folder(scratch.path(), second.spec, &stored, Kind::Float).unwrap();
        let second = ModelFolder::open(scratch.path()).unwrap();
        let [a, b, both] = [&first, &second, &model].map(predict);
        assert!(a.np == both.np && a.h == both.h && a.v == both.v);
        assert!(a.tp != both.tp);
        for ((a, b), found) in a.tp.iter().zip(&b.tp).zip(&both.tp) {
            assert!(
                (0.75 * a + 0.25 * b - found).abs() < 1e-5,
                "{a} {b} {found}"
            );
        }
        assert_eq!(predict(&model), both, "twice the same");
        let mut worker = model.load(Device::Cpu).unwrap().worker();
        let rounded = worker.predict_quantised(&[patch()]).unwrap();
        assert!(rounded == [both.quantised()]);
    }

    #[test]
    fn the_hash_is_of_both_files_and_both_are_checked() {
        let (first, _, folder) = joined(0.25);
        let model = ModelFolder::open(folder.path()).unwrap();
        assert_ne!(model.weights_sha256, first.weights_sha256);
        assert_eq!(
            model.spec.sha256, first.spec.sha256,
            "the first file is the same"
        );
        let (.., other) = joined(0.5);
        let other = ModelFolder::open(other.path()).unwrap();
        assert_ne!(model.weights_sha256, other.weights_sha256);

        let path = folder.path().join(TYPES_WEIGHTS);
        let mut bytes = std::fs::read(&path).unwrap();
        let toml = std::fs::read_to_string(folder.path().join("model.toml")).unwrap();
        let weights = std::fs::read(folder.path().join("model.safetensors")).unwrap();
        let alone = ModelFolder::from_bytes(&toml, &weights, Path::new("<memory>"));
        assert!(message(alone).contains(TYPES_WEIGHTS));
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let text = message(ModelFolder::open(folder.path()));
        assert!(text.contains(TYPES_WEIGHTS), "{text}");
        std::fs::remove_file(&path).unwrap();
        let text = message(ModelFolder::open(folder.path()));
        assert!(text.contains(TYPES_WEIGHTS), "{text}");
    }

    #[test]
    fn training_and_tuning_carry_the_second_network_along() {
        let (.., folder) = joined(0.25);
        let start = ModelFolder::open(folder.path()).unwrap();
        let mut config = TrainConfig::embedded().unwrap();
        config.types.truncate(2);
        config.types_from = start.types_file().cloned();
        (config.model.patch_in_px, config.model.patch_out_px) = (64, 64);
        let tensors: Vec<_> = start.tensors().unwrap().iter().collect();
        let halved: Vec<_> = tensors
            .iter()
            .map(|(n, t)| (n.to_string(), *t * 0.5))
            .collect();
        let best = tempfile::tempdir().unwrap();
        package::write_model(best.path(), &config, &halved).unwrap();
        let out = tempfile::tempdir().unwrap();
        package::copy_model(best.path(), out.path()).unwrap();
        let trained = ModelFolder::open(out.path()).unwrap();
        let [before, after] = [&start, &trained].map(|m| m.types_file().unwrap());
        assert_eq!(before.said, after.said);
        assert!(before.bytes == after.bytes);

        let tuned = Tuned {
            postproc: trained.spec.postproc.clone(),
            pq: Default::default(),
            temperature: Some(1.25),
            limits: vec![],
            nll: [0.0; 2],
        };
        package::apply_tuning(out.path(), &tuned).unwrap();
        package::apply_tuning(out.path(), &tuned).unwrap();
        let tuned = ModelFolder::open(out.path()).unwrap();
        assert_eq!(tuned.spec.types_from.as_ref().unwrap().temperature, 1.5625);
        assert_eq!(
            tuned.spec.sha256, trained.spec.sha256,
            "no weight was touched"
        );
        assert_ne!(tuned.weights_sha256, trained.weights_sha256);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let model = random_model(1, 0.25, &TYPES);
        let text = message(types_file(&model, &random_model(2, 0.5, &TYPES), 0.5));
        assert!(text.contains("0.5 µm/px"), "{text}");
        let swapped = random_model(2, 0.25, &["background", "b", "a"]);
        let text = message(types_file(&model, &swapped, 0.5));
        assert!(text.contains("same order"), "{text}");
        let rule = ModelFolder::analytic(crate::model::analytic::Options::PLAIN);
        assert_eq!(rule.spec.architecture, Architecture::Analytic);
        assert!(types_file(&rule, &rule, 0.5).is_err());
        let (first, _, folder) = joined(0.25);
        let joined = ModelFolder::open(folder.path()).unwrap();
        for (a, b) in [(&joined, &first), (&first, &joined)] {
            let text = message(types_file(a, b, 0.5));
            assert!(text.contains("second network already"), "{text}");
        }
    }

    #[test]
    fn a_mean_of_models_keeps_a_second_network_that_both_have() {
        let (first, _, folder) = joined(0.25);
        let joined = ModelFolder::open(folder.path()).unwrap();
        let mean = crate::train::average::average_models;
        assert!(mean(&joined, &joined, 0.5).is_ok());
        let text = message(mean(&joined, &first, 0.5));
        assert!(text.contains("[types_from]"), "{text}");
    }
}
