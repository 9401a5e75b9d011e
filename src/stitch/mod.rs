//! Joins what tile borders cut.
