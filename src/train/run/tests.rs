//! Trainings of a few steps: stopped and resumed, with a teacher, refused.

use std::path::Path;

use super::*;
use crate::model::{Architecture, lite};
use crate::train::checkpoint::write_tensors;
use crate::train::initial;
use image::{GrayImage, Luma, Rgb, RgbImage};
use tch::Kind;

/// Writes two images of discs with their ids, and an encoder of random weights; returns a
/// configuration for them.
fn fixture(root: &Path) -> TrainConfig {
    for folder in ["set/images", "set/labels"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for name in ["a", "b"] {
        let inside =
            |x: u32, y: u32| (x % 24).abs_diff(12).pow(2) + (y % 24).abs_diff(12).pow(2) < 60;
        let rgb = RgbImage::from_fn(96, 96, |x, y| {
            if inside(x, y) {
                Rgb([90, 60, 140])
            } else {
                Rgb([230, 190, 215])
            }
        });
        let ids = GrayImage::from_fn(96, 96, |x, y| {
            Luma([if inside(x, y) {
                (1 + x / 24 + 4 * (y / 24)) as u8
            } else {
                0
            }])
        });
        rgb.save(root.join(format!("set/images/{name}.png")))
            .unwrap();
        ids.save(root.join(format!("set/labels/{name}.png")))
            .unwrap();
    }
    let mut rng = fastrand::Rng::with_seed(3);
    let mut tensors = Vec::new();
    for l in lite::layers(0).iter().filter(|l| l.encoder) {
        let options = (Kind::Float, tch::Device::Cpu);
        tensors.push((
            format!("{}.weight", l.name),
            initial::draw_normal(&l.shape, 0.1, &mut rng),
        ));
        for (part, value) in [("gain", 1.0), ("bias", 0.0), ("mean", 0.0), ("var", 1.0)] {
            tensors.push((
                format!("{}.{part}", l.name),
                Tensor::full([l.shape[0]], value, options),
            ));
        }
    }
    write_tensors(&tensors, &root.join("encoder.safetensors")).unwrap();
    let text = include_str!("../../../config/train-default.toml");
    let mut config: TrainConfig = toml::from_str(text).unwrap();
    config.data.retain(|set| set.name == "nuinsseg");
    config.data[0].folder = "set".into();
    config.data[0].mpp = 0.25;
    (config.crop_px, config.batch) = (64, 1);
    config.types.clear();
    config
}

fn job(root: &Path, config: &TrainConfig, out: &str, steps: u64) -> TrainJob {
    TrainJob {
        config: config.clone(),
        data_root: root.to_path_buf(),
        start: Start::Encoder(root.join("encoder.safetensors")),
        out: root.join(out),
        steps,
        checkpoint_every: 2,
        validate_every: 0,
        patience: 0,
        bf16: false,
        device: Device::Cpu,
        teacher: None,
    }
}

fn trained(root: &Path, out: &str) -> Vec<u8> {
    std::fs::read(root.join(out).join("model.safetensors")).unwrap()
}

#[test]
fn a_stopped_and_resumed_training_gives_the_same_weights() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (accumulate, taught) in [(1, 0.0), (2, 0.5)] {
        let config = TrainConfig {
            accumulate,
            taught,
            ..fixture(root)
        };
        let outs = [format!("whole{accumulate}"), format!("stopped{accumulate}")];
        let never = AtomicBool::new(false);
        let whole = TrainJob {
            validate_every: 2,
            ..job(root, &config, &outs[0], 4)
        };
        assert_eq!(run(&whole, &never, &mut |_| {}).unwrap(), Ended::AllSteps);
        let other = job(root, &config, &outs[1], 4);
        // Stopped after the third step, between two regular checkpoints.
        let stop = AtomicBool::new(false);
        let ended = run(&other, &stop, &mut |p| {
            stop.store(p.step == 3, Ordering::Relaxed)
        });
        assert_eq!(ended.unwrap(), Ended::Stopped);
        assert_eq!(run(&other, &never, &mut |_| {}).unwrap(), Ended::AllSteps);
        assert!(
            trained(root, &outs[0]) == trained(root, &outs[1]),
            "the weights differ; validation or the stop changed them"
        );
        let folder = crate::model::ModelFolder::open(&root.join(&outs[0])).unwrap();
        assert_eq!(folder.spec.types.len(), 0);
    }
}

#[test]
fn hovernet_learns_and_resumes_across_the_end_of_its_first_phase() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let mut config = TrainConfig {
        crop_px: 256,
        // Every crop is the same picture, so that the losses of two steps can be compared.
        augment: false,
        frozen_steps: 2,
        ema: 0.0,
        lr: 1e-3,
        encoder_lr: 1e-3,
        ..fixture(root)
    };
    config.model.architecture = Architecture::HovernetFast;
    (config.model.patch_in_px, config.model.patch_out_px) = (256, 164);
    let thin = || {
        let first = initial::draw_normal(&[8, 3, 7, 7], 0.1, &mut fastrand::Rng::with_seed(5));
        Start::Model(
            [("conv0./.weight".to_string(), first)]
                .into_iter()
                .collect(),
        )
    };
    let job = |out: &str| TrainJob {
        start: thin(),
        ..job(root, &config, out, 6)
    };
    let never = AtomicBool::new(false);
    let mut losses = Vec::new();
    run(&job("whole"), &never, &mut |p| losses.push(p.loss)).unwrap();
    assert!(losses[5] < 0.9 * losses[0], "{losses:?}");
    let stop = AtomicBool::new(false);
    let other = job("stopped");
    run(&other, &stop, &mut |p| {
        stop.store(p.step == 1, Ordering::Relaxed)
    })
    .unwrap();
    run(&other, &never, &mut |_| {}).unwrap();
    assert!(trained(root, "whole") == trained(root, "stopped"));
    let folder = crate::model::ModelFolder::open(&root.join("whole")).unwrap();
    assert_eq!(folder.spec.architecture, Architecture::HovernetFast);
}

#[test]
fn a_teacher_changes_the_weights_and_is_refused_for_hovernet() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let never = AtomicBool::new(false);
    let labels_alone = fixture(root);
    let taught = TrainConfig {
        taught: 0.5,
        ..fixture(root)
    };
    run(&job(root, &labels_alone, "alone", 3), &never, &mut |_| {}).unwrap();
    run(&job(root, &taught, "taught", 3), &never, &mut |_| {}).unwrap();
    assert!(trained(root, "alone") != trained(root, "taught"));
    let mut hovernet = taught;
    hovernet.model.architecture = Architecture::HovernetFast;
    hovernet.crop_px = 256;
    let refused = hovernet.check().unwrap_err();
    assert!(refused.contains("hovernet-fast does not"), "{refused}");
}

/// hovernet-wide from the repository's weights, on labelled images and on the same ones without
/// their labels, with the default model as the teacher.
#[test]
fn wide_learns_from_its_weights_and_a_teacher() {
    use crate::labels::Format;
    use crate::model::{Library, ModelFolder};

    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let default = TrainConfig::embedded().unwrap();
    let mut config = TrainConfig {
        types: default.types.clone(),
        augment: false,
        taught: 0.5,
        teacher: Some("default".into()),
        ema: 0.0,
        ..fixture(root)
    };
    config.model.architecture = Architecture::HovernetWide;
    (config.model.patch_in_px, config.model.patch_out_px) = (64, 32);
    let mut pictures = config.data[0].clone();
    (pictures.name, pictures.format) = ("pictures".into(), Format::Pictures);
    (pictures.folder, pictures.share) = ("set/images".into(), pictures.share / 2.0);
    pictures.hold_out.clear();
    config.data.push(pictures);
    config.check().unwrap();

    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    let wide = ModelFolder::open(&weights.join("wide")).unwrap();
    let start = || {
        Start::Model(
            wide.tensors()
                .unwrap()
                .iter()
                .map(|(n, t)| (n.clone(), t.copy()))
                .collect(),
        )
    };
    let lite = Library::default().open("default").unwrap();
    let job = || TrainJob {
        start: start(),
        teacher: Some(Teacher::new(&lite, &config, crate::model::Device::Cpu, false).unwrap()),
        ..job(root, &config, "wide", 8)
    };
    let mut losses = Vec::new();
    run(&job(), &AtomicBool::new(false), &mut |p| {
        losses.push(p.loss)
    })
    .unwrap();
    assert!(
        losses[6] + losses[7] < 0.9 * (losses[0] + losses[1]),
        "{losses:?}"
    );
    let taught = ModelFolder::open(&root.join("wide")).unwrap();
    assert_eq!(taught.spec.architecture, Architecture::HovernetWide);
    let [before, after] = [&wide, &taught].map(|m| m.tensors().unwrap());
    for name in [
        "encoder.stem.weight",
        "types.res4.0.a.weight",
        "head.hv.bias",
    ] {
        assert_ne!(before[name], after[name], "{name} did not learn");
    }
}

#[test]
fn pictures_without_labels_need_a_teacher_and_cannot_be_held_out() {
    use crate::labels::Format;

    let root = tempfile::tempdir().unwrap();
    let mut config = fixture(root.path());
    config.data[0].format = Format::Pictures;
    config.data[0].hold_out.clear();
    let refused = |config: &TrainConfig| config.check().unwrap_err();
    assert!(
        refused(&config).contains("--teacher"),
        "{}",
        refused(&config)
    );
    (config.taught, config.teacher) = (0.5, Some("default".into()));
    config.check().unwrap();
    config.data[0].hold_out.push("a".into());
    assert!(
        refused(&config).contains("held out"),
        "{}",
        refused(&config)
    );
}

#[test]
fn a_checkpoint_of_another_configuration_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let config = fixture(root);
    let never = AtomicBool::new(false);
    run(&job(root, &config, "one", 2), &never, &mut |_| {}).unwrap();
    let other = TrainConfig { lr: 0.5, ..config };
    let error = run(&job(root, &other, "one", 2), &never, &mut |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("lr = 0.0015, now lr = 0.5"), "{text}");
}

#[test]
fn sets_without_an_image_to_learn_from_are_left_out_or_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let never = AtomicBool::new(false);
    let mut config = fixture(root);
    config.data[0].hold_out = vec!["a".into(), "b".into()];
    let error = run(&job(root, &config, "all", 1), &never, &mut |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("nuinsseg") && text.contains("hold out fewer"),
        "{text}"
    );
    // Beside a set with images it is left out.
    let mut other = config.data[0].clone();
    (other.name, other.hold_out) = ("other".into(), vec!["a".into()]);
    config.data.push(other);
    let ended = run(&job(root, &config, "one", 1), &never, &mut |_| {}).unwrap();
    assert_eq!(ended, Ended::AllSteps);
}
