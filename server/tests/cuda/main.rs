//! The binary on a GPU that is simulated: a stand-in for `libcuda.so` runs the kernels that ship,
//! with all checks of the simulator, through the real driver interface. With `UNDERSTUDY_TEST_GPU`
//! set, the real driver and its first GPU take their place (scripts/gpu-check), and what needs
//! faults to be injected is left out.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod adapters;
mod answers;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod graphs;
mod machine;
mod overlap;
mod parity;
mod together;
mod wide;
