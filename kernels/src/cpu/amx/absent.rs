//! A machine or a system without AMX.

use super::model::ModelTiles;
use super::tiles::{Shapes, Unit};
use crate::cpu::simd::Kernel;

/// There is none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hardware {}

pub(crate) fn is_available() -> bool {
    false
}

impl Hardware {
    pub(super) fn find() -> Option<Self> {
        None
    }

    pub(super) fn run(self, _: impl Kernel) {
        match self {}
    }
}

impl Unit for Hardware {
    type Tiles = ModelTiles;

    fn configure(self, _: Shapes) -> ModelTiles {
        match self {}
    }
}
