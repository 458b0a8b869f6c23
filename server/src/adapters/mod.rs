//! Adapters that are served beside the base model: which there are, which are in memory, and
//! which of them a request is answered with.
//!
//! A name is one thing and its content another: every load is a new generation, and a request
//! keeps the generation that it began with ([`Lease`]), whatever happens to the name meanwhile.

mod choice;
mod disk;
mod journal;
mod lease;
pub(crate) mod loader;
mod registry;
mod serving;

pub(crate) use disk::adapters_in;

pub use choice::{Choice, Names};
pub use lease::{Lease, LeaseInUse};
pub use serving::{
    AdapterError, AdapterOptions, Adapters, AdaptersInUse, LoadRequest, Refreshed, Served,
};
