//! What spans rooms, and what tests of several rooms share: a strict executor without a model,
//! and the simulation of the scheduler.

pub mod drive;
pub mod duel;
pub mod fake;
mod fake_flight;

mod fake_model;
mod fake_pooling;
pub mod forcing;
pub mod fuzz;
mod guests;
pub mod hostile;
pub mod oracle;
mod promises;
mod record;
pub mod rng;
pub mod simulation;
mod traffic;
