//! Instructions by hand-written PTX: each against its definition, computed here.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod float;
mod harness;
mod integer;
mod memory;
mod tensor;
mod warp;
