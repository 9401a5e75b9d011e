//! Targets computed by tensor operations against the same found px by px.

use fastrand::Rng;
use tch::Device;

use super::*;

const SIDE: usize = 40;

/// Crops of random discs: ids that overlap, touch, are cut by the border, and some px unknown.
fn draw_crop(rng: &mut Rng, ids: i64) -> Vec<i64> {
    let mut crop = vec![0; SIDE * SIDE];
    for id in 1..ids {
        let (x, y) = (rng.f32() * SIDE as f32, rng.f32() * SIDE as f32);
        let radius = 1.0 + rng.f32() * 7.0;
        for (i, v) in crop.iter_mut().enumerate() {
            let (dx, dy) = ((i % SIDE) as f32 - x, (i / SIDE) as f32 - y);
            if dx * dx + dy * dy < radius * radius {
                *v = id;
            }
        }
    }
    crop[..SIDE].fill(-1);
    crop
}

fn values(t: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(&t.to_kind(Kind::Double).reshape(-1)).unwrap()
}

/// h and v of px `at` by the definition, and the number of px of its nucleus.
fn hv_of(crop: &[i64], at: usize) -> ([f64; 2], usize) {
    let own: Vec<_> = (0..crop.len()).filter(|&i| crop[i] == crop[at]).collect();
    let ideal = [1, SIDE].map(|stride| {
        let place = |i: usize| (i / stride % SIDE) as f64;
        let mean = own.iter().map(|&i| place(i)).sum::<f64>() / own.len() as f64;
        let offset = |i: usize| place(i) - mean.round();
        let d = offset(at);
        let same_side = own
            .iter()
            .map(|&i| offset(i))
            .filter(|o| (*o > 0.0) == (d > 0.0));
        d / same_side.map(f64::abs).fold(1.0, f64::max)
    });
    (ideal, own.len())
}

fn lies_between(crop: &[i64], at: usize) -> bool {
    let mut near = std::collections::BTreeSet::new();
    let steps = [(0i64, 0i64)]
        .into_iter()
        .chain([1, 3].into_iter().flat_map(|d| {
            [-d, 0, d]
                .into_iter()
                .flat_map(move |dy| [-d, 0, d].map(|dx| (dx, dy)))
        }));
    for (dx, dy) in steps {
        let (x, y) = ((at % SIDE) as i64 + dx, (at / SIDE) as i64 + dy);
        if (0..SIDE as i64).contains(&x) && (0..SIDE as i64).contains(&y) {
            near.insert(crop[y as usize * SIDE + x as usize]);
        }
    }
    near.into_iter().filter(|id| *id > 0).count() > 1
}

fn of_instances(crops: &[Vec<i64>], types: &[i64]) -> Labels {
    let n = crops.len() as i64;
    let shape = [n, SIDE as i64, SIDE as i64];
    let ids: Vec<i64> = crops.concat();
    let of_px: Vec<i64> = ids.iter().map(|&id| types[id.max(0) as usize]).collect();
    Labels {
        ids: Tensor::from_slice(&ids).view(shape),
        types: Tensor::from_slice(&of_px).view(shape),
        dot_distance_px: None,
        dotted: Tensor::zeros([n, 1, 1], (Kind::Bool, Device::Cpu)),
        id_counts: vec![types.len() as i64; crops.len()],
    }
}

#[test]
fn instances_have_the_targets_of_their_definition() {
    let mut rng = Rng::with_seed(2);
    let types = [0, 3, 0, 1, 2, 1, 4, 0, 2, 3, 1, 2];
    let crops = [0, 1, 2].map(|_| draw_crop(&mut rng, types.len() as i64));
    let t = compute_targets(&of_instances(&crops, &types));
    let [np, np_weight, hv, hv_weight, tp, tp_weight] = [
        &t.np,
        &t.np_weight,
        &t.hv,
        &t.hv_weight,
        &t.tp,
        &t.tp_weight,
    ]
    .map(values);
    let mut small = 0;
    for (n, crop) in crops.iter().enumerate() {
        for (i, &id) in crop.iter().enumerate() {
            let at = n * SIDE * SIDE + i;
            let weight = match lies_between(crop, i) {
                _ if id < 0 => 0.0,
                true => 3.0,
                false => 1.0,
            };
            assert_eq!([np[at], np_weight[at]], [f64::from(id > 0), weight]);
            let known = types[id.max(0) as usize];
            let type_weight = f64::from(known > 0);
            assert_eq!(
                [tp[at], tp_weight[at]],
                [(known - 1).max(0) as f64, type_weight]
            );
            if id <= 0 {
                assert_eq!(hv_weight[at], 0.0);
                continue;
            }
            let ([h, v], pixels) = hv_of(crop, i);
            if pixels < 30 {
                small += 1;
                assert_eq!(hv_weight[at], 0.0);
                continue;
            }
            let at_h = n * 2 * SIDE * SIDE + i;
            let (found_h, found_v) = (hv[at_h], hv[at_h + SIDE * SIDE]);
            assert!(
                (found_h - h).abs() < 1e-6 && (found_v - v).abs() < 1e-6,
                "{h} {v}"
            );
            assert_eq!(hv_weight[at], weight);
        }
    }
    assert!(small > 10, "no small nucleus was tried");
}

/// A row of px at growing distance from a typed and an untyped dot, beside a crop of instances.
#[test]
fn dots_are_nuclei_near_and_background_far_away() {
    let distances = [0.0, 5.0, 5.1, 36.0, 36.5, f32::INFINITY, 3.0, f32::INFINITY];
    let ids = [1i64, 1, 1, 1, 1, 0, 2, -1];
    let types = [2i64, 2, 2, 2, 2, 0, 0, 0];
    let row = |t: Tensor| t.view([1, 1, 8]);
    let twice = |t: Tensor| Tensor::cat(&[&t, &t], 0);
    let labels = Labels {
        ids: twice(row(Tensor::from_slice(&ids))),
        types: twice(row(Tensor::from_slice(&types))),
        dot_distance_px: Some(twice(row(Tensor::from_slice(&distances)))),
        dotted: Tensor::from_slice(&[true, false]).view([2, 1, 1]),
        id_counts: vec![3, 3],
    };
    let t = compute_targets(&labels);
    let first = |t: &Tensor| values(t)[..8].to_vec();
    assert_eq!(first(&t.np), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    let wanted = [0.5, 0.5, 0.0, 0.0, 0.3, 0.3, 0.5, 0.0];
    for (found, wanted) in first(&t.np_weight).into_iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-6, "{found} for {wanted}");
    }
    assert_eq!(first(&t.tp), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(
        first(&t.tp_weight),
        [2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(values(&t.hv_weight)[..8], [0.0; 8]);
    // The same ids as instances are nuclei, whatever the distances.
    assert_eq!(values(&t.np)[8..], [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(
        values(&t.tp_weight)[8..],
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    );
}
