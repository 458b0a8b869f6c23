//! Running decoded kernels: blocks over threads, a block's warps in turn, a warp's lanes in
//! lockstep until they diverge.

mod access;
mod agreement;
mod barrier;
mod block;
mod clocks;
mod context;
mod copies;
mod counters;
mod fences;
mod launch;
mod local;
mod mbarrier;
mod products;
mod shared;
mod traffic;
mod warp;

pub(crate) use context::{Context, Shape};
pub(crate) use copies::CopyAsync;
pub use counters::Counters;
pub(crate) use fences::Covers;
pub(crate) use launch::run;
pub use launch::{Launch, Options, Report};
pub(crate) use products::{First, Form, Product, Rows};
pub(crate) use shared::{GUARD, Shared, SharedPlan, Write};
