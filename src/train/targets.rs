//! Targets: the maps that the network should predict for a batch, and the weight of each pixel.
//!
//! In: the [`Labels`] of the crops. Out: [`Targets`], on the same device. np: inside a nucleus or
//! not. h, v: the distance from the rounded centre of mass along each axis, scaled so that a nucleus
//! runs from -1 to 1 (Graham et al. 2019, HoVer-Net, section 3). tp: the type. Where the labels say
//! nothing, the weight is 0.

use tch::{Kind, Tensor};

/// Nuclei with fewer pixels in the crop have no targets of h and v (as in hover_net).
const MIN_HV_PX: i64 = 30;
/// Extra weight of pixels where two nuclei are close: there the network must separate them.
const TOUCH_WEIGHT: f64 = 2.0;
/// Within this distance of a dot there is a nucleus of the dot's type, px (1.25 µm at 0.25 µm/px).
const DOT_RADIUS_PX: f64 = 5.0;
/// Beyond this distance of every dot there is no nucleus, px (9 µm at 0.25 µm/px): each nucleus of
/// a dotted image has its dot, and few reach farther. Between the two distances nothing is known.
pub const DOT_CLEAR_PX: f32 = 36.0;
/// Weight of np near a dot.
const DOT_NP_WEIGHT: f64 = 0.5;
/// Weight of np far from every dot.
const DOT_CLEAR_WEIGHT: f64 = 0.3;
/// Weight of the type near a dot: more than 1, because these pixels stand for the whole nucleus.
const DOT_TYPE_WEIGHT: f64 = 2.0;
/// Sums over pixels of no nucleus are spread over so many places: all atomic additions to one would
/// wait for each other on a GPU.
const NOWHERE: i64 = 4096;
/// More than any id. Sums with an id are exact in a float.
const NO_ID: f64 = 8_388_608.0;

/// What is known of the pixels of N crops, each `[N, side, side]` if not said.
pub struct Labels {
    /// Instance id within the image, int64; 0: none, -1: unknown, as outside the image. In dotted
    /// crops: the nearest dot, 0 far from all.
    pub ids: Tensor,
    /// Type of the id, int64; 0: unknown.
    pub types: Tensor,
    /// Distance from the dot, float, crop px; infinite without one. `None`: no crop has dots.
    pub dot_distance_px: Option<Tensor>,
    /// Whether a crop has dots in place of instances, bool `[N, 1, 1]`.
    pub dotted: Tensor,
    /// Number of ids of the image of each crop, id 0 counted.
    pub id_counts: Vec<i64>,
}

/// Targets of a batch: float `[N, 1, side, side]` if not said.
pub struct Targets {
    pub np: Tensor,
    pub np_weight: Tensor,
    /// `[N, 2, side, side]`.
    pub hv: Tensor,
    pub hv_weight: Tensor,
    /// Type - 1 where known, 0 elsewhere, int64 `[N, side, side]`.
    pub tp: Tensor,
    pub tp_weight: Tensor,
}

/// Targets of a batch.
pub fn compute_targets(labels: &Labels) -> Targets {
    let known = labels.ids.ge(0).to_kind(Kind::Float);
    let instances = labels.ids.clamp_min(0).masked_fill(&labels.dotted, 0);
    let inside = instances.gt(0);
    let touching = lie_between_nuclei(&instances).to_kind(Kind::Float);
    let (h, v, large) = compute_hv(&instances, &labels.id_counts);
    let mut np = inside;
    let mut weight = touching * TOUCH_WEIGHT + 1.0;
    if let Some(distance) = &labels.dot_distance_px {
        let near = distance.le(DOT_RADIUS_PX);
        let dotted_weight = (distance.gt(f64::from(DOT_CLEAR_PX)).to_kind(Kind::Float)
            * DOT_CLEAR_WEIGHT)
            .masked_fill(&near, DOT_NP_WEIGHT);
        np = np.logical_or(&near.logical_and(&labels.dotted));
        weight = dotted_weight.where_self(&labels.dotted, &weight);
    }
    let np_weight = weight * known;
    let hv_weight = &np_weight * large.to_kind(Kind::Float);
    let types = &labels.types * np.to_kind(Kind::Int64);
    let typed = types.gt(0).to_kind(Kind::Float);
    let dots_count_more = labels.dotted.to_kind(Kind::Float) * (DOT_TYPE_WEIGHT - 1.0) + 1.0;
    Targets {
        np: np.to_kind(Kind::Float).unsqueeze(1),
        np_weight: np_weight.unsqueeze(1),
        hv: Tensor::stack(&[h, v], 1),
        hv_weight: hv_weight.unsqueeze(1),
        tp: (types - 1).clamp_min(0),
        tp_weight: (typed * dots_count_more).unsqueeze(1),
    }
}

/// h and v of `instances` (int64 `[N, side, side]`, 0 where none), and whether each px belongs to a
/// nucleus large enough to have them. All sums are of whole numbers, so they do not depend on their
/// order.
fn compute_hv(instances: &Tensor, id_counts: &[i64]) -> (Tensor, Tensor, Tensor) {
    let device = instances.device();
    let (height, width) = (instances.size()[1], instances.size()[2]);
    let inside = instances.gt(0);
    // Each nucleus of each crop has a place of its own in the sums.
    let firsts = id_counts.iter().scan(0, |sum, n| {
        *sum += n;
        Some(*sum - n)
    });
    let firsts: Vec<i64> = firsts.collect();
    let ids: i64 = id_counts.iter().sum();
    let firsts = Tensor::from_slice(&firsts)
        .view([-1, 1, 1])
        .to_device(device);
    let pixels = Tensor::arange(instances.numel() as i64, (Kind::Int64, device));
    let nowhere = pixels.bitwise_and(NOWHERE - 1).view_as(instances) + ids;
    let key = (instances + firsts)
        .where_self(&inside, &nowhere)
        .reshape(-1);
    let empty = Tensor::zeros([ids + NOWHERE], (Kind::Int64, device));
    let places = |length: i64, shape: [i64; 3]| {
        let along = Tensor::arange(length, (Kind::Int64, device)).view(shape);
        along.expand_as(instances).reshape(-1)
    };
    let n = empty.scatter_add(0, &key, &key.ones_like());
    let axis = |place: Tensor| {
        let sum = empty.scatter_add(0, &key, &place);
        let n = n.clamp_min(1);
        // The rounded mean, halves upwards.
        let centre = (sum * 2 + &n).floor_divide(&(n * 2));
        let offset = place - centre.index_select(0, &key);
        let farthest = |d: &Tensor| empty.internal_scatter_reduce(0, &key, d, "amax", true);
        let reach = farthest(&offset).index_select(0, &key);
        let reach = reach.where_self(&offset.gt(0), &farthest(&-&offset).index_select(0, &key));
        let ideal = offset.to_kind(Kind::Float) / reach.clamp_min(1).to_kind(Kind::Float);
        ideal.view_as(instances)
    };
    let large = n.ge(MIN_HV_PX).index_select(0, &key).view_as(instances);
    let large = large.logical_and(&inside);
    let outside = large.logical_not();
    let [h, v] = [(width, [1, 1, -1]), (height, [1, -1, 1])]
        .map(|(length, shape)| axis(places(length, shape)).masked_fill(&outside, 0.0));
    (h, v, large)
}

/// Whether two different nuclei lie within 3 px of a px, its own nucleus counted: looked for at
/// distances of 0, 1 and 3 px along the axes and diagonals.
fn lie_between_nuclei(instances: &Tensor) -> Tensor {
    let ids = instances.to_kind(Kind::Float);
    // The greatest id, and of those that are one the smallest, as its negative.
    let negative = (-&ids).masked_fill(&ids.eq(0.0), -NO_ID);
    let [greatest, smallest] = [(ids, 0.0), (negative, -NO_ID)].map(|(t, nothing)| {
        let [near, apart] =
            [1, 3].map(|d| greatest_at(&greatest_at(&t, 2, d, nothing), 1, d, nothing));
        near.maximum(&apart)
    });
    greatest.gt(0.0).logical_and(&(greatest + smallest).ne(0.0))
}

/// The greatest of each value of `[N, H, W]` and those `distance` before and after it along `dim`;
/// `nothing` lies outside.
fn greatest_at(t: &Tensor, dim: i64, distance: i64, nothing: f64) -> Tensor {
    let mut shape = t.size();
    shape[dim as usize] = distance;
    let border = Tensor::full(shape, nothing, (Kind::Float, t.device()));
    let padded = Tensor::cat(&[&border, t, &border], dim);
    let shifted = |by: i64| padded.narrow(dim, by, t.size()[dim as usize]);
    t.maximum(&shifted(0)).maximum(&shifted(2 * distance))
}

#[cfg(test)]
mod tests;
