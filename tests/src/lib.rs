//! What spans rooms, and what tests of several rooms share: a strict executor without a model,
//! and the simulation of the scheduler.

pub mod drive;
mod fairness;
pub mod fake;
mod fake_model;
pub mod oracle;
mod record;
pub mod rng;
pub mod simulation;
mod traffic;
