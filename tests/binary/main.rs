//! The real binary, driven as a user drives it. One test program, so that it is linked once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod budget;
mod cases;
mod cli;
mod cohort;
mod cohort_race;
mod crowd;
mod disk;
mod golden;
mod harness;
mod hostile;
mod hostile_files;
mod hostile_labels;
mod hovernet;
mod invariance;
mod killed;
mod learning;
mod old_results;
mod pyramid;
mod regions;
mod scale;
mod seams;
mod stopped;
mod tiff;
mod view;
mod words;
