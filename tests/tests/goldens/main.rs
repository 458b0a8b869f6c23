//! Models against expected values from another implementation, through the scheduler.

mod adapters;
mod expected;
mod micro;
mod serve;
mod smollm2;
