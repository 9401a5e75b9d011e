use std::path::Path;

use image::RgbImage;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};

use super::*;

/// A thin HoVer-Net fast with 3 types, as a folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(tensors: &[(String, Tensor)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let file = folder.0.path().join("model.safetensors");
        Tensor::write_safetensors(tensors, &file).unwrap();
        folder.describe(|text| text);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes model.toml with the hash of the weights that are there.
    fn describe(&self, edit: impl Fn(String) -> String) {
        let bytes = std::fs::read(self.path().join("model.safetensors")).unwrap();
        let text = format!(
            "name = \"thin\"\narchitecture = \"hovernet-fast\"\nmpp = 0.25\npatch_in_px = 256\npatch_out_px = 164\n\
             weights = \"model.safetensors\"\nsha256 = \"{}\"\n\
             [[types]]\nname = \"background\"\ncolor = [0, 0, 0]\n\
             [[types]]\nname = \"a\"\ncolor = [255, 0, 0]\n\
             [[types]]\nname = \"b\"\ncolor = [0, 0, 255]\n",
            sha256_hex(&bytes)
        );
        std::fs::write(self.path().join(SPEC_FILE), edit(text)).unwrap();
    }

    fn error(&self) -> String {
        match ModelFolder::open(self.path()) {
            Ok(_) => panic!("the folder was accepted"),
            Err(error) => error.to_string(),
        }
    }
}

fn thin_tensors() -> Vec<(String, Tensor)> {
    hovernet::parameters(Mode::Fast, 3, 8)
        .into_iter()
        .map(|(name, shape)| {
            let tensor = Tensor::ones(&shape, (Kind::Float, tch::Device::Cpu)) * 0.01;
            (name, tensor)
        })
        .collect()
}

fn edited(folder_edit: impl Fn(String) -> String) -> String {
    let folder = Folder::new(&thin_tensors());
    folder.describe(folder_edit);
    folder.error()
}

#[test]
fn a_folder_opens_loads_and_predicts() {
    let folder = Folder::new(&thin_tensors());
    let opened = ModelFolder::open(folder.path()).unwrap();
    assert_eq!(
        opened.parameters().len(),
        hovernet::parameters(Mode::Fast, 3, 8).len()
    );
    let model = opened.load(Device::Cpu).unwrap();
    let patches = [
        RgbImage::new(256, 256),
        RgbImage::from_pixel(256, 256, image::Rgb([200, 100, 50])),
    ];
    let together = model.worker().predict(&patches).unwrap();
    assert_eq!(together.len(), 2);
    assert_eq!(
        (together[0].width, together[0].height, together[0].tp.len()),
        (164, 164, 164 * 164 * 3)
    );
    // Neither batch nor thread changes a bit.
    let mut other = model.worker();
    let alone = std::thread::spawn(move || {
        other
            .predict(&[RgbImage::from_pixel(256, 256, image::Rgb([200, 100, 50]))])
            .unwrap()
    });
    assert_eq!(alone.join().unwrap()[0], together[1]);
}

#[test]
fn half_precision_storage_is_read_as_f32() {
    let halves: Vec<(String, Tensor)> = thin_tensors()
        .into_iter()
        .map(|(name, tensor)| (name, tensor.to_kind(Kind::Half)))
        .collect();
    let folder = Folder::new(&halves);
    let opened = ModelFolder::open(folder.path()).unwrap();
    let Weights::Tensors(tensors) = &opened.weights else {
        panic!("no tensors");
    };
    assert!(tensors.values().all(|tensor| tensor.kind() == Kind::Float));
    let value = tensors["decoder.np.u0.conv.bias"].double_value(&[0]);
    assert!((value - 0.01).abs() < 1e-5, "{value}");
}

#[test]
fn a_wrong_hash_names_both_and_the_cure() {
    let folder = Folder::new(&thin_tensors());
    let file = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let stated = sha256_hex(&bytes);
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let message = folder.error();
    for part in [
        stated.as_str(),
        &sha256_hex(&bytes),
        "model.safetensors",
        "copy the folder again",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn names_and_shapes_are_checked_and_at_most_five_listed() {
    let mut tensors = thin_tensors();
    tensors.retain(|(name, _)| !name.starts_with("d0.units.0"));
    tensors.push(("stray".into(), Tensor::from_slice(&[1f32])));
    for (name, tensor) in &mut tensors {
        if name == "conv_bot.weight" {
            *tensor = tensor.narrow(0, 0, 1).contiguous();
        }
    }
    let message = Folder::new(&tensors).error();
    for part in [
        "11 missing: d0.units.0.conv1.weight",
        "and 6 more",
        "1 of the wrong shape: conv_bot.weight is [1, 256, 1, 1], wanted [128, 256, 1, 1]",
        "1 unexpected: stray",
        "hovernet-fast",
        "check architecture and types",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_wrong_number_of_types_names_the_tensor() {
    let message = edited(|text| text + "[[types]]\nname = \"c\"\ncolor = [1, 2, 3]\n");
    assert!(
        message.contains("decoder.tp.u0.conv.bias is [3], wanted [4]"),
        "{message}"
    );
}

#[test]
fn toml_errors_name_file_and_line() {
    let message = edited(|text| text.replace("mpp = 0.25", "mpp = fast"));
    assert!(message.contains("model.toml:3: "), "{message}");
    let message = edited(|text| text.replace("mpp = 0.25", "mmp = 0.25"));
    assert!(
        message.contains("model.toml:3: ") && message.contains("mmp"),
        "{message}"
    );
    let message = edited(|text| text.replace("hovernet-fast", "unet"));
    assert!(
        message.contains("model.toml:2: ") && message.contains("hovernet-original"),
        "{message}"
    );
    let message = edited(|text| text.replace("color = [255, 0, 0]", "color = [256, 0, 0]"));
    assert!(message.contains("model.toml:13: "), "{message}");
}

#[test]
fn fields_out_of_range_are_named() {
    for (from, to, part) in [
        ("mpp = 0.25", "mpp = -1.0", "mpp: is -1"),
        ("mpp = 0.25", "mpp = nan", "mpp: is NaN"),
        ("patch_in_px = 256", "patch_in_px = 0", "patch_in_px: is 0"),
        (
            "patch_in_px = 256",
            "patch_in_px = 250",
            "takes 256 px or 8, 16",
        ),
        (
            "patch_out_px = 164",
            "patch_out_px = 163",
            "both even or both odd",
        ),
        (
            "patch_out_px = 164",
            "patch_out_px = 300",
            "must be 1 to patch_in_px (256)",
        ),
        ("name = \"b\"", "name = \"a\"", "the name 'a' stands twice"),
        (
            "weights = \"model.safetensors\"",
            "weights = \"../model.safetensors\"",
            "file beside model.toml",
        ),
        (
            "weights = \"model.safetensors\"\n",
            "",
            "weights: is missing",
        ),
        ("sha256 = \"", "sha256 = \"x", "64 hex digits"),
        (
            "[[types]]\nname = \"a\"",
            "[postproc]\nnp_threshold = 0.5\nenergy = \"eigen\"\nsobel_px = 4\nhv_lo = 0.0\nhv_hi = \
                0.1\nenergy_threshold = 0.4\nopen_px = 5\nmin_area_um2 = 1.0\n[[types]]\nname = \"a\"",
            "sobel_px: is 4",
        ),
    ] {
        let message = edited(|text| text.replacen(from, to, 1));
        assert!(message.contains(part), "{part} in {message}");
        assert!(message.contains("model.toml"), "{message}");
    }
    let many = (0..70).map(|i| format!("[[types]]\nname = \"t{i}\"\ncolor = [0, 0, 0]\n"));
    let message = edited(|text| text + &many.clone().collect::<String>());
    assert!(message.contains("holds 73"), "{message}");
}

#[test]
fn missing_files_are_named() {
    let folder = Folder::new(&thin_tensors());
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(folder.error().contains("model.safetensors: cannot be read"));
    std::fs::remove_file(folder.path().join(SPEC_FILE)).unwrap();
    assert!(folder.error().contains("model.toml: cannot be read"));
}

#[test]
fn hostile_weights_give_errors() {
    let path = Path::new("m/model.safetensors");
    let header = |json: &str, data: &[u8]| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.extend(data);
        bytes
    };
    let tensor = |kind: &str, shape: &str, end: usize| {
        format!("{{\"w\":{{\"dtype\":\"{kind}\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}}}")
    };
    let cases = [
        (vec![], "not a readable weights file"),
        (b"not a weights file at all".to_vec(), "header"),
        (u64::MAX.to_le_bytes().to_vec(), "header"),
        (header("{", &[]), "header"),
        (
            header(&tensor("F32", "[4]", 16), &[0; 15]),
            "not a readable",
        ),
        (
            header(&tensor("F32", "[18446744073709551615,2]", 16), &[0; 16]),
            "not a readable",
        ),
        (header(&tensor("F32", "[0]", 0), &[]), "has the shape [0]"),
        (
            header(&tensor("F32", "[1,1,1,1,1,1,1,1,1]", 4), &[0; 4]),
            "has the shape",
        ),
        (header(&tensor("I32", "[1]", 4), &[0; 4]), "stored as I32"),
        (
            header(&tensor("F32", "[1]", 4), &f32::NAN.to_le_bytes()),
            "NaN",
        ),
    ];
    for (bytes, part) in cases {
        let message = weights::read_safetensors(&bytes, path)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains(part) && message.contains("m/model.safetensors"),
            "{message}"
        );
    }
}

#[test]
fn batch_counters_are_left_out() {
    let count = 7i64.to_le_bytes();
    let value = 2.5f32.to_le_bytes();
    let bytes = safetensors::serialize(
        [
            (
                "bn.num_batches_tracked",
                TensorView::new(Dtype::I64, vec![], &count).unwrap(),
            ),
            (
                "bn.weight",
                TensorView::new(Dtype::F32, vec![1], &value).unwrap(),
            ),
        ],
        None,
    )
    .unwrap();
    let tensors = weights::read_safetensors(&bytes, Path::new("x")).unwrap();
    assert_eq!(tensors.len(), 1);
    assert_eq!(
        (tensors[0].0.as_str(), tensors[0].1.double_value(&[0])),
        ("bn.weight", 2.5)
    );
}

#[test]
fn a_torchscript_module_runs() {
    // Returns np = red / 255 - 0.5, hv = (green, blue) / 255, tp = the picture / 100
    // (make_torchscript.py).
    let module = include_bytes!("../../../tests/fixtures/torchscript_tuple.pt");
    let scratch = tempfile::tempdir().unwrap();
    let write = |weights: &[u8]| {
        let hash = sha256_hex(weights);
        let types: String = ["background", "a", "b"]
            .map(|name| format!("[[types]]\nname = \"{name}\"\ncolor = [0, 0, 0]\n"))
            .concat();
        let text = format!(
            "name = \"script\"\narchitecture = \"torchscript\"\nmpp = 0.5\npatch_in_px = 32\npatch_out_px = 24\n\
             weights = \"model.pt\"\nsha256 = \"{hash}\"\n{types}"
        );
        std::fs::write(scratch.path().join("model.pt"), weights).unwrap();
        std::fs::write(scratch.path().join(SPEC_FILE), text).unwrap();
        ModelFolder::open(scratch.path()).unwrap().load(Device::Cpu)
    };
    let model = write(module).unwrap();
    let patch = RgbImage::from_fn(32, 32, |x, y| image::Rgb([255, x as u8, y as u8]));
    let map = model.worker().predict(&[patch]).unwrap().remove(0);
    assert_eq!((map.width, map.height, map.types), (24, 24, 3));
    assert!((map.np[0] - 1.0 / (1.0 + (-0.5f32).exp())).abs() < 1e-6);
    let at = 3 * 24 + 5;
    assert!((map.h[at] - 9.0 / 255.0).abs() < 1e-6 && (map.v[at] - 7.0 / 255.0).abs() < 1e-6);
    let [a, b, c] = [2.55f32.exp(), 0.09f32.exp(), 0.07f32.exp()];
    assert!((map.tp[3 * at + 1] - b / (a + b + c)).abs() < 1e-6);

    let message = write(b"no module").err().unwrap().to_string();
    assert!(message.contains("torch.jit.save"), "{message}");
}
