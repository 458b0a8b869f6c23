//! Naive f64 versions of every op: slow, obvious, and what tests compare with.
//!
//! They take plain slices in the shapes of the ops and give f64.

mod attention;
mod linear;
mod low_rank;
mod rows;

pub use attention::{AttentionShape, Scoring, attention};
pub use linear::{linear, linear_native};
pub use low_rank::add_low_rank;
pub use rows::{activate, gate, norm, rope};
