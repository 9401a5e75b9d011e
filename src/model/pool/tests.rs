use super::*;

/// A network that has memory for `takes` patches at once and remembers what it was given.
struct Small {
    takes: usize,
    calls: Vec<usize>,
    batch: usize,
}

impl Small {
    fn new(takes: usize) -> Self {
        Self {
            takes,
            calls: vec![],
            batch: 0,
        }
    }
}

impl PatchModel for Small {
    fn predict(&mut self, _: &[RgbImage]) -> Result<Vec<PredictionMap>, ModelError> {
        Err(ModelError::input("only rounded maps are asked for"))
    }

    fn set_batch(&mut self, batch: usize) {
        self.batch = batch;
    }

    /// One pixel per patch: its red.
    fn predict_quantised(&mut self, patches: &[RgbImage]) -> Result<Vec<QuantisedMap>, ModelError> {
        self.calls.push(patches.len());
        if patches.len() > self.takes {
            let reason = "CUDA out of memory. Tried to allocate 2.00 GiB".into();
            return Err(ModelError::OutOfMemory { reason });
        }
        let map = |patch: &RgbImage| QuantisedMap {
            width: 1,
            height: 1,
            np: vec![patch.get_pixel(0, 0).0[0]],
            h: vec![0],
            v: vec![0],
            types: 0,
            tp: vec![],
        };
        Ok(patches.iter().map(map).collect())
    }
}

fn patches(count: u8) -> Vec<RgbImage> {
    (0..count)
        .map(|i| RgbImage::from_pixel(2, 2, image::Rgb([i; 3])))
        .collect()
}

fn quantised(
    worker: &mut dyn PatchModel,
    patches: &[RgbImage],
) -> Result<Vec<QuantisedMap>, ModelError> {
    worker.predict_quantised(patches)
}

#[test]
fn too_little_memory_halves_the_batch_and_goes_on() {
    let limit = BatchLimit::new(16);
    let mut worker = Small::new(5);
    let maps = limit.predict(&mut worker, &patches(16), quantised).unwrap();
    let seen: Vec<u8> = maps.iter().map(|map| map.np[0]).collect();
    assert_eq!(seen, (0..16).collect::<Vec<u8>>());
    assert_eq!(worker.calls, [16, 8, 4, 4, 4, 4]);
    assert_eq!(worker.batch, 4);
    // It stays so, for the other workers too.
    let mut other = Small::new(5);
    limit.predict(&mut other, &patches(9), quantised).unwrap();
    assert_eq!(other.calls, [4, 4, 1]);
}

#[test]
fn a_patch_that_does_not_fit_alone_ends_the_run() {
    let limit = BatchLimit::new(4);
    let mut worker = Small::new(0);
    let error = limit
        .predict(&mut worker, &patches(4), quantised)
        .unwrap_err();
    assert_eq!(worker.calls, [4, 2, 1]);
    assert!(error.to_string().contains("--patch-size"), "{error}");
}
