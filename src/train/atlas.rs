//! All images to learn from, resident on the device, and the crops cut out of them there.
//!
//! In: loaded sets once, then the places of a batch. Out: pixels and [`Labels`] as tensors on the
//! device. Nothing but a few numbers per crop travels from the host. Never draws at random.

use image::RgbImage;
use tch::{Device, IndexOp, Kind, Tensor};

use super::TrainError;
use super::crops::{Place, STEP_RANGE, learning_images};
use super::targets::{DOT_CLEAR_PX, Labels};
use crate::labels::{Dot, LabelledImage, LoadedSet, Truth};

/// Bytes per px of an image: a packed colour and an id.
const BYTES_PER_PX: u64 = 8;

/// The images that are not held out.
pub struct Atlas {
    device: Device,
    /// Red, green and blue in the low 24 bits, int32 `[px]`, all images one after another.
    colours: Tensor,
    /// Id of each px within its image, int32 `[px]`: 0 none, -1 unknown; of dotted images the
    /// nearest dot, if it is near.
    ids: Tensor,
    /// Type of each id of each image, int64 `[ids]`.
    types: Tensor,
    /// Place in its image of each dot, float `[ids, 2]`, px; 0 for instances.
    dots: Tensor,
    images: Vec<Stored>,
}

/// Where an image lies in the tensors.
struct Stored {
    first_px: i64,
    size: [i64; 2],
    first_id: i64,
    /// Number of ids, id 0 counted.
    ids: i64,
    dotted: bool,
}

/// The tensors of an [`Atlas`] while they grow on the host.
#[derive(Default)]
struct Flat {
    colours: Vec<i32>,
    ids: Vec<i32>,
    types: Vec<i64>,
    dots: Vec<f32>,
}

impl Atlas {
    /// Brings all images of `sets` that are not held out onto `device`.
    ///
    /// # Errors
    /// A device with too little memory.
    pub fn new(sets: &[LoadedSet], device: Device) -> Result<Self, TrainError> {
        let pixels = learning_images(sets).map(|i| i.rgb.pixels().len());
        let pixels: usize = pixels.sum();
        let mut flat = Flat {
            colours: Vec::with_capacity(pixels),
            ids: Vec::with_capacity(pixels),
            ..Flat::default()
        };
        let images: Vec<Stored> = learning_images(sets).map(|i| flat.add(i)).collect();
        let Flat {
            colours,
            ids,
            types,
            dots,
        } = flat;
        let there = |t: Tensor| {
            t.f_to_device(device).map_err(|error| {
                TrainError::Config(format!(
                    "the {} images to learn from take {} MiB on {device:?}: {error}. A smaller data_part, fewer sets, or --device cpu",
                    images.len(),
                    (pixels as u64 * BYTES_PER_PX) >> 20
                ))
            })
        };
        // One after the other, so that no more than one of them is there twice.
        let whole = |values: Vec<i32>| there(Tensor::from_slice(&values));
        Ok(Self {
            device,
            colours: whole(colours)?,
            ids: whole(ids)?,
            types: there(Tensor::from_slice(&types))?,
            dots: there(Tensor::from_slice(&dots).view([-1, 2]))?,
            images,
        })
    }

    pub const fn device(&self) -> Device {
        self.device
    }

    /// Cuts squares of `side` px out of the images: pixels, whole numbers 0 to 255 as float
    /// `[N, 3, side, side]`, and what is known of them. Outside an image its pixels are mirrored and
    /// nothing is known.
    pub fn cut(&self, places: &[Place], side: usize) -> (Tensor, Labels) {
        let grid = Grid::new(self, places, side as i64);
        (
            self.cut_pixels(places, &grid),
            self.cut_labels(places, &grid),
        )
    }

    fn cut_labels(&self, places: &[Place], grid: &Grid) -> Labels {
        let [x, y] = [&grid.x, &grid.y].map(|t| t.floor().to_kind(Kind::Int64));
        let [w, h] = [0, 1].map(|axis| grid.size_px(axis));
        let outside = x.lt(0).logical_or(&y.lt(0));
        let outside = outside
            .logical_or(&x.ge_tensor(&w))
            .logical_or(&y.ge_tensor(&h));
        let [x, y] = [(x, &w), (y, &h)].map(|(t, n)| t.clamp_min(0).minimum(&(n - 1)));
        let at = grid.first_px() + y * &w + x;
        let ids = pick(&self.ids, &at).to_kind(Kind::Int64);
        let ids = ids.masked_fill(&outside, -1);
        let in_table = grid.first_id() + ids.clamp_min(0);
        let stored: Vec<&Stored> = places.iter().map(|p| &self.images[p.image]).collect();
        Labels {
            types: pick(&self.types, &in_table),
            dot_distance_px: stored
                .iter()
                .any(|image| image.dotted)
                .then(|| self.dot_distance_px(&ids, &in_table, grid)),
            dotted: of_crops(stored.iter().map(|i| i64::from(i.dotted)), self.device).eq(1),
            id_counts: stored.iter().map(|image| image.ids).collect(),
            ids,
        }
    }

    /// Distance of each px from the dot that its id names, crop px; infinite where there is none.
    fn dot_distance_px(&self, ids: &Tensor, in_table: &Tensor, grid: &Grid) -> Tensor {
        let along = |axis: i64, place: &Tensor| pick(&self.dots.i((.., axis)), in_table) - place;
        let squared = along(0, &grid.x).square() + along(1, &grid.y).square();
        let distance = squared.sqrt() / grid.step();
        distance.masked_fill(&ids.le(0), f64::INFINITY)
    }

    fn cut_pixels(&self, places: &[Place], grid: &Grid) -> Tensor {
        let folds = places.iter().map(|p| self.folds(p, grid.side)).max();
        let folds = folds.unwrap_or(1);
        let numbers = |copied: bool| -> Vec<i64> {
            let chosen = places
                .iter()
                .zip(0i64..)
                .filter(|(p, _)| p.copied == copied);
            chosen.map(|(_, n)| n).collect()
        };
        let (copied, resampled) = (numbers(true), numbers(false));
        let all = places.len();
        let cut = |chosen: &[i64], sample: &dyn Fn(&Grid) -> Tensor| match chosen.len() {
            0 => None,
            n if n == all => Some((sample(grid), None)),
            _ => {
                let chosen = Tensor::from_slice(chosen).to_device(self.device);
                Some((sample(&grid.of(&chosen)), Some(chosen)))
            }
        };
        let parts = [
            cut(&copied, &|grid| self.sample_nearest(grid, folds)),
            cut(&resampled, &|grid| self.sample_cubic(grid, folds)),
        ];
        match parts {
            [Some((only, None)), _] | [_, Some((only, None))] => only,
            parts => {
                let size = [all as i64, 3, grid.side, grid.side];
                let mut whole = Tensor::zeros(size, (Kind::Float, self.device));
                for (part, chosen) in parts.into_iter().flatten() {
                    if let Some(chosen) = chosen {
                        let _ = whole.index_copy_(0, &chosen, &part);
                    }
                }
                whole
            }
        }
    }

    /// The px that holds each place of the grid.
    fn sample_nearest(&self, grid: &Grid, folds: usize) -> Tensor {
        let [x, y] = [(0, &grid.x), (1, &grid.y)]
            .map(|(axis, t)| mirror(&t.floor(), &grid.size_px(axis), folds));
        let at = grid.first_px() + y * grid.size_px(0) + x;
        Tensor::stack(&channels(&pick(&self.colours, &at)), 1)
    }

    /// Catmull-Rom samples (Keys 1981, a = -1/2), as on slides.
    fn sample_cubic(&self, grid: &Grid, folds: usize) -> Tensor {
        let [x, y] = [&grid.x, &grid.y].map(|t| t - 0.5);
        let [x0, y0] = [x.floor(), y.floor()];
        let [wx, wy] = [catmull_rom(&(x - &x0)), catmull_rom(&(y - &y0))];
        let (w, h) = (grid.size_px(0), grid.size_px(1));
        let columns: [Tensor; 4] =
            std::array::from_fn(|k| mirror(&(&x0 + (k as f64 - 1.0)), &w, folds));
        let mut sum: [Tensor; 3] = std::array::from_fn(|_| x0.zeros_like());
        for (j, wy) in wy.iter().enumerate() {
            let row = grid.first_px() + mirror(&(&y0 + (j as f64 - 1.0)), &h, folds) * &w;
            for (column, wx) in columns.iter().zip(&wx) {
                let weight = wx * wy;
                let found = channels(&pick(&self.colours, &(&row + column)));
                for (sum, channel) in sum.iter_mut().zip(found) {
                    let _ = sum.addcmul_(&channel, &weight);
                }
            }
        }
        Tensor::stack(&sum, 1).clamp(0.0, 255.0).round()
    }

    /// How often a crop is folded back at the borders of its image until it lies inside.
    fn folds(&self, place: &Place, side: i64) -> usize {
        let [w, h] = self.images[place.image].size;
        // The diagonal at any angle, and the reach of the filter.
        let reach = place.step * side as f64 * std::f64::consts::FRAC_1_SQRT_2 + 3.0;
        (reach / w.min(h) as f64).ceil() as usize
    }
}

impl Flat {
    fn add(&mut self, image: &LabelledImage) -> Stored {
        let (w, h) = image.rgb.dimensions();
        let first_px = self.colours.len() as i64;
        let first_id = self.types.len() as i64;
        let packed = |p: &image::Rgb<u8>| {
            let [r, g, b] = p.0.map(i32::from);
            r | g << 8 | b << 16
        };
        self.colours.extend(image.rgb.pixels().map(packed));
        match &image.truth {
            Truth::Instances { ids, types } => {
                self.ids.extend(ids.iter().map(|&id| id as i32));
                self.types.extend(types.iter().copied().map(i64::from));
                // Id 0 has no type, whatever the table says.
                match self.types.get_mut(first_id as usize) {
                    Some(none) => *none = 0,
                    None => self.types.push(0),
                }
            }
            Truth::Dots(dots) => {
                self.ids.extend(nearest_dots(dots, &image.rgb));
                self.types.push(0);
                self.types.extend(dots.iter().map(|d| i64::from(d.type_id)));
            }
            Truth::Unknown => {
                self.ids.resize(self.colours.len(), -1);
                self.types.push(0);
            }
        }
        self.dots.resize(first_id as usize * 2, 0.0);
        if let Truth::Dots(dots) = &image.truth {
            self.dots.extend([0.0; 2]);
            self.dots.extend(dots.iter().flat_map(|d| [d.x_px, d.y_px]));
        }
        self.dots.resize(self.types.len() * 2, 0.0);
        Stored {
            first_px,
            size: [i64::from(w), i64::from(h)],
            first_id,
            ids: self.types.len() as i64 - first_id,
            dotted: matches!(image.truth, Truth::Dots(_)),
        }
    }
}

/// 1 + the number of the dot nearest to each px, 0 where none is so near that any crop, at any
/// scale, asks for it.
fn nearest_dots(dots: &[Dot], image: &RgbImage) -> Vec<i32> {
    let (w, h) = (image.width() as usize, image.height() as usize);
    let reach = DOT_CLEAR_PX * STEP_RANGE.1 as f32 + 1.0;
    let mut nearest = vec![(f32::INFINITY, 0); w * h];
    let span = |c: f32, n: usize| {
        let end = (c + reach + 1.0).clamp(0.0, n as f32) as usize;
        ((c - reach).clamp(0.0, n as f32) as usize).min(end)..end
    };
    for (dot, id) in dots.iter().zip(1..) {
        for y in span(dot.y_px, h) {
            for x in span(dot.x_px, w) {
                let (dx, dy) = (x as f32 + 0.5 - dot.x_px, y as f32 + 0.5 - dot.y_px);
                let squared = dx * dx + dy * dy;
                let best = &mut nearest[y * w + x];
                if squared <= reach * reach && squared < best.0 {
                    *best = (squared, id);
                }
            }
        }
    }
    nearest.into_iter().map(|(_, id)| id).collect()
}

/// Where the px of a batch of crops lie in their images.
struct Grid {
    side: i64,
    /// Centres of the px in their images, float `[N, side, side]`, px.
    x: Tensor,
    y: Tensor,
    /// Width, height, first px and first id of the image of each crop, int64 `[N, 4]`.
    images: Tensor,
    /// Image px per crop px, float `[N, 1, 1]`.
    step: Tensor,
}

impl Grid {
    fn new(atlas: &Atlas, places: &[Place], side: i64) -> Self {
        let device = atlas.device;
        let numbers = |p: &Place| {
            let [[xx, xy], [yx, yy]] = p.axes;
            [p.centre[0], p.centre[1], xx, xy, yx, yy, p.step].map(|v| v as f32)
        };
        let numbers: Vec<f32> = places.iter().flat_map(numbers).collect();
        let numbers = Tensor::from_slice(&numbers)
            .view([-1, 7, 1, 1])
            .to_device(device);
        let number = |n: i64| numbers.i((.., n));
        let along = Tensor::arange(side, (Kind::Float, device)) + (0.5 - side as f64 / 2.0);
        let (across, down) = (along.view([1, 1, side]), along.view([1, side, 1]));
        let place = |centre, x, y| number(centre) + &across * number(x) + &down * number(y);
        let of_image = |p: &Place| {
            let image = &atlas.images[p.image];
            [image.size[0], image.size[1], image.first_px, image.first_id]
        };
        let images: Vec<i64> = places.iter().flat_map(of_image).collect();
        Self {
            side,
            x: place(0, 2, 3),
            y: place(1, 4, 5),
            images: Tensor::from_slice(&images).view([-1, 4]).to_device(device),
            step: number(6),
        }
    }

    /// The crops whose numbers `chosen` (int64) holds.
    fn of(&self, chosen: &Tensor) -> Self {
        let some = |t: &Tensor| t.index_select(0, chosen);
        Self {
            side: self.side,
            x: some(&self.x),
            y: some(&self.y),
            images: some(&self.images),
            step: some(&self.step),
        }
    }

    fn of_image(&self, part: i64) -> Tensor {
        self.images.i((.., part)).view([-1, 1, 1])
    }

    /// Width (axis 0) or height (1) of the image of each crop, int64 `[N, 1, 1]`.
    fn size_px(&self, axis: i64) -> Tensor {
        self.of_image(axis)
    }

    fn first_px(&self) -> Tensor {
        self.of_image(2)
    }

    fn first_id(&self) -> Tensor {
        self.of_image(3)
    }

    fn step(&self) -> &Tensor {
        &self.step
    }
}

/// One number per crop, int64 `[N, 1, 1]`.
fn of_crops(numbers: impl Iterator<Item = i64>, device: Device) -> Tensor {
    let numbers: Vec<i64> = numbers.collect();
    Tensor::from_slice(&numbers)
        .view([-1, 1, 1])
        .to_device(device)
}

/// `table[at]` in the shape of `at`.
fn pick(table: &Tensor, at: &Tensor) -> Tensor {
    table.index_select(0, &at.reshape(-1)).view_as(at)
}

/// Red, green and blue of packed colours, float.
fn channels(packed: &Tensor) -> [Tensor; 3] {
    let byte = |t: Tensor| t.bitwise_and(255).to_kind(Kind::Float);
    [
        byte(packed.shallow_clone()),
        byte(packed.bitwise_right_shift_tensor_scalar(8)),
        byte(packed.bitwise_right_shift_tensor_scalar(16)),
    ]
}

/// Weights of the px at -1, 0, 1 and 2 for a place `f` of the way from 0 to 1.
fn catmull_rom(f: &Tensor) -> [Tensor; 4] {
    let f2 = f.square();
    let f3 = &f2 * f;
    [
        &f2 - (f + &f3) * 0.5,
        &f3 * 1.5 - &f2 * 2.5 + 1.0,
        f * 0.5 + &f2 * 2.0 - &f3 * 1.5,
        (f3 - f2) * 0.5,
    ]
}

/// The index (int64) on which `i` (float, whole) falls when `0..n` is mirrored `folds` times at its
/// ends: each fold reflects at 0 and at n.
fn mirror(i: &Tensor, n: &Tensor, folds: usize) -> Tensor {
    let n = n.to_kind(Kind::Float);
    let mut middle = i + 0.5;
    for _ in 0..folds {
        middle = &n - (&n - middle.abs()).abs();
    }
    (middle - 0.5).to_kind(Kind::Int64)
}

#[cfg(test)]
mod tests;
