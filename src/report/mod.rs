//! Self-contained HTML pages: no network, no script needed, readable on screen, in print and in the dark.
//!
//! In: titles, text, tables, series of numbers, pictures. Out: strings. Never reads a store or a slide.

pub mod chart;
pub mod overlay;
pub mod page;

pub use chart::{Series, lines};
pub use page::{escape, image_tag, page};
