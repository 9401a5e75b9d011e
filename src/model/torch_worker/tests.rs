use super::*;

/// np, hv and tp straight from colours, so that every patch's maps are known, whatever the batch. Refuses batches
/// above `takes`, as a device without memory does.
struct Colours {
    takes: i64,
    /// Sizes of the batches that came.
    came: Arc<std::sync::Mutex<Vec<i64>>>,
}

fn allocate() -> Result<(), tch::TchError> {
    let text = "CUDA out of memory. Tried to allocate\nException raised from malloc";
    Err(tch::TchError::Torch(text.into()))
}

impl Network for Colours {
    fn forward(&self, rgb: &Tensor) -> Result<RawMaps, ModelError> {
        let count = rgb.size()[0];
        self.came.lock().unwrap().push(count);
        if count > self.takes {
            // As tch does where no error is asked for.
            allocate().unwrap();
        }
        let x = rgb.to_kind(Kind::Float) / 64.0 - 2.0;
        Ok(RawMaps {
            np: x.narrow(1, 0, 1),
            hv: x.narrow(1, 1, 2),
            tp: Some(&x * 1.5),
        })
    }
}

fn worker(takes: i64, batch: Option<usize>) -> (TorchWorker, Arc<std::sync::Mutex<Vec<i64>>>) {
    let came = Arc::default();
    let network = Colours {
        takes,
        came: Arc::clone(&came),
    };
    let worker = TorchWorker {
        batch,
        ..TorchWorker::new(SharedNetwork::new(network), Device::Cpu, 2, 3)
    };
    (worker, came)
}

fn patches(count: u8) -> Vec<RgbImage> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..count)
        .map(|_| RgbImage::from_fn(20, 16, |_, _| image::Rgb([0; 3].map(|_: u8| random.u8(..)))))
        .collect()
}

#[test]
fn batches_of_a_device_give_the_bytes_of_the_cpus_single_patches() {
    let patches = patches(13);
    let (mut cpu, came) = worker(1, None);
    let single = cpu.predict_quantised(&patches).unwrap();
    assert_eq!(*came.lock().unwrap(), [1; 13]);
    assert_eq!(
        (single[0].width, single[0].height, single[0].tp.len()),
        (16, 12, 3 * 192)
    );
    for batch in [1, 2, 5, 16] {
        let (mut device, came) = worker(64, Some(batch));
        assert!(
            device.predict_quantised(&patches).unwrap() == single,
            "{batch}"
        );
        // What is left over at the end is run as a half, a quarter or so of a batch.
        let last = [(1, 1), (2, 1), (5, 5), (16, 16)];
        let wanted = last.iter().find(|(size, _)| *size == batch).unwrap().1;
        assert_eq!(came.lock().unwrap().last(), Some(&wanted), "{batch}");
    }
}

#[test]
fn maps_before_rounding_come_from_batches_too() {
    let patches = patches(5);
    let single = worker(1, None).0.predict(&patches).unwrap();
    assert!(worker(64, Some(4)).0.predict(&patches).unwrap() == single);
}

#[test]
fn few_sizes_of_batches_are_run() {
    let sizes = |full| {
        (1..=full)
            .map(|real| padded(real, full))
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(8), [1, 2, 4, 4, 8, 8, 8, 8]);
    assert_eq!(sizes(6), [1, 3, 3, 6, 6, 6]);
    assert_eq!(padded(9, 4), 9);
}

#[test]
fn a_panic_for_want_of_memory_is_an_error_that_says_so() {
    let (mut device, _) = worker(4, Some(8));
    let error = device.predict_quantised(&patches(8)).unwrap_err();
    assert!(error.is_out_of_memory(), "{error}");
    assert!(!error.to_string().contains("Exception"), "{error}");
    device.set_batch(4);
    assert_eq!(device.predict_quantised(&patches(8)).unwrap().len(), 8);
}
