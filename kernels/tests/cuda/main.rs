//! The CUDA kernels, the very bytes that ship, on a simulator with all its checks: against the
//! references, over ragged and edge shapes, with the counts that make them fast.

#[path = "../common/mod.rs"]
mod common;

mod attention;
mod experts;
mod gpu;
mod groups;
mod kv;
mod linear;
mod rows;
mod wgmma;
