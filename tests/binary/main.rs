//! The real binary, driven as a user drives it. One test program, so that it is linked once.

mod cli;
mod harness;
mod hovernet;
mod learning;
mod old_results;
mod seams;
