//! The back end that starts the launches: everything that talks to the driver.

mod arena;
mod attention;
mod bare;
mod driver;
mod experts;
mod flight;
mod functions;
mod gpu;
mod graphs;
mod group;
mod kv;
mod linear;
mod low_rank;
mod nccl;
mod rows;
mod sample;
mod scratch;
mod step;
mod values;

pub(crate) use attention::{AttentionAt, RopeAt};
pub use bare::BareGpu;
pub use driver::CudaError;
pub(crate) use gpu::Gpu;
pub(crate) use kv::CudaKv;
pub(crate) use linear::CudaLinear;
pub(crate) use low_rank::{CudaLowRank, OutAt};
pub(crate) use rows::NormAt;
pub(crate) use values::Values;
