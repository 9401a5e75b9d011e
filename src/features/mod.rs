//! What a nucleus looks like, in numbers.
//!
//! In: a [`Nucleus`](crate::nuclei::Nucleus) (its mask and its sums), or the centroids of all of them. Out: [`Shape`] (scikit-image's region
//! properties, measured on the mask), [`Stain`], type probabilities, [`Neighbourhood`]. Never reads a pixel of the
//! slide and never changes a nucleus.

pub mod convex;
pub mod grid;
pub mod neighbours;
pub mod shape;
pub mod stain;

pub use neighbours::{NEIGHBOURHOOD_UM, Neighbourhood, neighbours, neighbours_among};
pub use shape::{Shape, shape, shape_of, shape_um};
pub use stain::{Stain, stain, type_entropy, type_probabilities};
