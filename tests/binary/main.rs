//! The real binary, driven as a user drives it. One test program, so that it is linked once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod budget;
mod cases;
mod cli;
mod crowd;
mod devices;
mod disk;
mod golden;
mod harness;
mod hostile;
mod hostile_labels;
mod hovernet;
mod invariance;
mod killed;
mod learning;
mod old_results;
mod pyramid;
mod regions;
mod seams;
mod stopped;
mod tiff;
mod view;
