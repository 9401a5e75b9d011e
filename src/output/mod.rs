//! One writer a format.
