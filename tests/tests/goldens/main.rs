//! Models against expected values from another implementation, through the scheduler.

mod adapters;
mod expected;
mod gguf;
mod micro;
mod replaced;
mod serve;
mod smollm2;
