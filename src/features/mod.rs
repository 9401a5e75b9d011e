//! Measures of nuclei: shape, stain, type entropy, neighbourhood.
//!
//! In: a [`Nucleus`](crate::nuclei::Nucleus) (its mask and its sums), or the centroids of all
//! nuclei. Out: [`Shape`] (scikit-image's region properties of the mask), [`Stain`], the entropy of
//! the type, [`Outline`] (QuPath's measures of the drawn polygon), [`Neighbourhood`], and [`Ring`], which alone reads pixels, through a function that it
//! is given. Never changes a nucleus.

mod convex;
mod mask_image;
mod neighbours;
mod outline;
pub mod ring;
mod shape;
mod stain;

pub use neighbours::{Neighbourhood, neighbours, neighbours_among};
pub use outline::outline;
pub use ring::Ring;
pub use shape::{Shape, shape, shape_of, shape_um};
pub use stain::{Stain, stain, type_entropy};
