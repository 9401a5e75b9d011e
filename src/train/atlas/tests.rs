//! Crops cut by tensor operations against the same crops cut px by px.

use fastrand::Rng;
use image::{Rgb, RgbImage};

use super::*;
use crate::train::crops::Pool;

/// Two sets: an image of instances and one of dots, smaller than a crop at its largest; then one
/// that nobody labelled.
fn sets() -> Vec<LoadedSet> {
    let mut rng = Rng::with_seed(4);
    let mut image = |w: u32, h: u32, truth: &dyn Fn(&mut Rng) -> Truth| LabelledImage {
        name: "set/image".into(),
        held_out: false,
        rgb: RgbImage::from_fn(w, h, |_, _| Rgb([0; 3].map(|_: u8| rng.u8(..)))),
        truth: truth(&mut Rng::with_seed(5)),
    };
    let instances = |rng: &mut Rng| Truth::Instances {
        ids: (0..70 * 50).map(|_| rng.u32(0..4)).collect(),
        types: vec![0, 2, 0, 1],
    };
    let dots = |rng: &mut Rng| {
        let dot = |n: u8| Dot {
            x_px: rng.f32() * 90.0,
            y_px: rng.f32() * 40.0,
            type_id: n % 3,
        };
        Truth::Dots((0..5).map(dot).collect())
    };
    let first = image(70, 50, &instances);
    let second = image(90, 40, &dots);
    let mut held_out = image(30, 30, &instances);
    held_out.held_out = true;
    let third = image(64, 64, &|_| Truth::Unknown);
    let set = |name: &str, images| LoadedSet {
        name: name.into(),
        share: 1.0,
        images,
    };
    vec![
        set("a", vec![held_out, first]),
        set("b", vec![second, third]),
    ]
}

const SIDE: usize = 32;

fn draw_places(sets: &[LoadedSet], resampled: f64) -> Vec<Place> {
    let pool = Pool::new(sets, 2).unwrap();
    let mut rng = Rng::with_seed(6);
    let draw = |_| pool.draw_place(&mut rng, SIDE, Some(resampled));
    (0..40).map(draw).collect()
}

/// The place in its image of the centre of px (x, y) of a crop.
fn source(place: &Place, x: usize, y: usize) -> [f64; 2] {
    let half = SIDE as f64 / 2.0;
    let offset = [x as f64 + 0.5 - half, y as f64 + 0.5 - half];
    [0, 1].map(|i| place.centre[i] + place.axes[i][0] * offset[0] + place.axes[i][1] * offset[1])
}

fn mirrored(i: i64, n: u32) -> u32 {
    let n = i64::from(n);
    let m = i.rem_euclid(2 * n);
    (if m < n { m } else { 2 * n - 1 - m }) as u32
}

/// Keys's cubic for a = -1/2 by its definition.
fn keys(d: f64) -> f64 {
    let d = d.abs();
    match d {
        _ if d < 1.0 => 1.5 * d.powi(3) - 2.5 * d.powi(2) + 1.0,
        _ if d < 2.0 => -0.5 * d.powi(3) + 2.5 * d.powi(2) - 4.0 * d + 2.0,
        _ => 0.0,
    }
}

fn sample(image: &RgbImage, [x, y]: [f64; 2], channel: usize) -> f64 {
    let (x, y) = (x - 0.5, y - 0.5);
    let mut sum = 0.0;
    for j in y.floor() as i64 - 1..=y.floor() as i64 + 2 {
        for i in x.floor() as i64 - 1..=x.floor() as i64 + 2 {
            let px = image.get_pixel(mirrored(i, image.width()), mirrored(j, image.height()));
            sum += keys(x - i as f64) * keys(y - j as f64) * f64::from(px.0[channel]);
        }
    }
    sum.clamp(0.0, 255.0)
}

fn values(t: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(&t.to_kind(Kind::Double).reshape(-1)).unwrap()
}

#[test]
fn pixels_are_those_of_the_image() {
    let sets = sets();
    let atlas = Atlas::new(&sets, Device::Cpu).unwrap();
    let images: Vec<_> = learning_images(&sets).collect();
    assert_eq!(images.len(), 3);
    for resampled in [0.0, 0.5, 1.0] {
        let places = draw_places(&sets, resampled);
        let copied = places.iter().filter(|p| p.copied).count();
        assert_eq!(
            [copied == 40, copied == 0],
            [resampled == 0.0, resampled == 1.0]
        );
        let found = values(&atlas.cut(&places, SIDE).0);
        let mut found = found.into_iter();
        for place in &places {
            for channel in 0..3 {
                for y in 0..SIDE {
                    for x in 0..SIDE {
                        let image = &images[place.image].rgb;
                        let wanted = sample(image, source(place, x, y), channel);
                        let v = found.next().unwrap();
                        // Half a grey level of rounding, and the float's own error.
                        let error = if place.copied { 0.0 } else { 0.52 };
                        assert!((v - wanted).abs() <= error, "{v} for {wanted} at {place:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn labels_are_those_of_the_px_below() {
    let sets = sets();
    let atlas = Atlas::new(&sets, Device::Cpu).unwrap();
    let images: Vec<_> = learning_images(&sets).collect();
    let places = draw_places(&sets, 0.5);
    let labels = atlas.cut(&places, SIDE).1;
    let [ids, types] = [&labels.ids, &labels.types].map(values);
    let distances = values(labels.dot_distance_px.as_ref().unwrap());
    let dotted = values(&labels.dotted);
    let (mut unknown, mut near_dots, mut on_nuclei) = (0, 0, 0);
    for (n, place) in places.iter().enumerate() {
        let image = images[place.image];
        let (w, h) = (f64::from(image.rgb.width()), f64::from(image.rgb.height()));
        for y in 0..SIDE {
            for x in 0..SIDE {
                let at = n * SIDE * SIDE + y * SIDE + x;
                let [sx, sy] = source(place, x, y);
                let inside = sx >= 0.0 && sy >= 0.0 && sx < w && sy < h;
                match &image.truth {
                    Truth::Instances {
                        ids: all,
                        types: of_id,
                    } if inside => {
                        let id = all[sy as usize * w as usize + sx as usize];
                        assert_eq!(ids[at], f64::from(id));
                        assert_eq!(types[at], f64::from(of_id[id as usize]));
                        on_nuclei += 1;
                    }
                    Truth::Dots(dots) if inside => {
                        let apart =
                            |d: &Dot| (sx - f64::from(d.x_px)).hypot(sy - f64::from(d.y_px));
                        let nearest = dots.iter().map(apart).fold(f64::INFINITY, f64::min);
                        let nearest = nearest / place.step;
                        if nearest < 36.0 {
                            // Which dot is nearest is asked at the centre of the image's px.
                            let error = distances[at] - nearest;
                            assert!((-1e-3..1.5).contains(&error), "{error}");
                            let dot = dots[ids[at] as usize - 1];
                            assert_eq!(types[at], f64::from(dot.type_id));
                            near_dots += 1;
                        }
                    }
                    _ => {
                        assert_eq!(ids[at], -1.0);
                        unknown += 1;
                    }
                }
            }
        }
        assert_eq!(dotted[n] == 1.0, matches!(image.truth, Truth::Dots(_)));
        let count = match &image.truth {
            Truth::Instances { types, .. } => types.len(),
            Truth::Dots(dots) => dots.len() + 1,
            Truth::Unknown => 1,
        };
        assert_eq!(labels.id_counts[n], count as i64);
    }
    assert!(unknown > 1000 && near_dots > 1000 && on_nuclei > 1000);
}

/// A crop many times as large as its image shows it again and again, mirrored.
#[test]
fn a_small_image_is_mirrored_as_often_as_it_takes() {
    let mut sets = sets();
    sets.truncate(1);
    sets[0].images[1].rgb =
        RgbImage::from_fn(5, 3, |x, y| Rgb([(x * 40) as u8, (y * 70) as u8, 9]));
    sets[0].images[1].truth = Truth::Unknown;
    let atlas = Atlas::new(&sets, Device::Cpu).unwrap();
    let place = Place {
        image: 0,
        centre: [2.0, 2.0],
        axes: [[1.0, 0.0], [0.0, 1.0]],
        step: 1.0,
        copied: true,
    };
    let found = values(&atlas.cut(&[place], SIDE).0);
    let image = &sets[0].images[1].rgb;
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (ix, iy) = (x as i64 - 14, y as i64 - 14);
            let px = image.get_pixel(mirrored(ix, 5), mirrored(iy, 3)).0;
            let found = [0, 1].map(|c| found[c * SIDE * SIDE + y * SIDE + x]);
            assert_eq!(found, [f64::from(px[0]), f64::from(px[1])], "{x}, {y}");
        }
    }
}
