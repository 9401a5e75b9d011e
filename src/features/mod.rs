//! What a nucleus looks like, in numbers.
