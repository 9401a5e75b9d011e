//! What a nucleus looks like, in numbers.
//!
//! In: a [`Nucleus`](crate::nuclei::Nucleus) (its mask and its sums), or the centroids of all of them. Out: [`Shape`] (scikit-image's region
//! properties, measured on the mask), [`Stain`], type probabilities, [`Neighbourhood`]; [`Ring`] alone looks at
//! pixels, through a function that it is given. Never changes a nucleus.

pub mod convex;
pub mod grid;
pub mod neighbours;
pub mod ring;
pub mod shape;
pub mod stain;

pub use neighbours::{NEIGHBOURHOOD_UM, Neighbourhood, neighbours, neighbours_among};
pub use ring::Ring;
pub use shape::{Shape, shape, shape_of, shape_um};
pub use stain::{Stain, stain, type_entropy, type_probabilities};
