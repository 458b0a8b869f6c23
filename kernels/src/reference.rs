//! Naive f64 versions of every op: slow, obvious, and what tests compare with.
