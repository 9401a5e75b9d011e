//! The stages between a slide and its store.

pub mod events;
