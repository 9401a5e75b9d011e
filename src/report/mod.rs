//! Self-contained HTML pages: no network, no script needed, readable on screen, in print and in the dark.
//!
//! In: titles, text, tables, series of numbers, pictures. Out: strings. Never reads a store or a slide.

pub mod boxes;
pub mod chart;
pub mod cohort;
pub mod features;
mod figures;
pub mod maps;
pub mod overlay;
pub mod page;
mod reading;
pub mod slide;
pub mod stats;
mod type_counts;

pub use chart::{Series, lines};
pub use page::{encoded, escape, image_tag, page};
