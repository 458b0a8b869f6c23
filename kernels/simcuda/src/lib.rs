//! A stand-in for `libcuda.so`: the part of the CUDA driver API that cudarc calls, on devices
//! that are simulated by [`ptxsim`]. For tests only; it is in no image and nothing links it.
//!
//! Commands wait in their stream until somebody synchronises with it, as late as the API
//! allows: a program that reads a result or reuses a staging buffer too early does so here every
//! time. Device memory has known bounds and knows what was written; device addresses are no host
//! addresses, so host code that dereferences one faults at once.
//!
//! The same file stands in for `libnccl.so.2` ([`api`]'s `nccl`), as far as the devices of one
//! process exchange anything.
//!
//! Settings come from the environment ([`settings`]), faults to inject from a file that may
//! change while the program runs ([`control`]).

#![expect(
    unsafe_code,
    reason = "functions of a C interface, with pointers that only their caller vouches for"
)]

mod api;
mod capture;
mod clique;
mod command;
mod control;
mod device;
mod driver;
mod error;
mod report;
mod settings;
mod stream;
