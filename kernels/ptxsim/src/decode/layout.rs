//! Which slot holds which register, constant and special register.

use std::collections::HashMap;

use crate::registers::{Registers, Slot, Width};

/// A special register that is constant for a block's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Lane,
    Warp,
    NumWarps,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    DynamicShared,
    Zero,
    One,
}

impl Special {
    /// The special register of that name; clocks have no meaning here and are not known.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (base, axis) = match name.rsplit_once('.') {
            Some((base, "x")) => (base, 0),
            Some((base, "y")) => (base, 1),
            Some((base, "z")) => (base, 2),
            _ => (name, 0),
        };
        Some(match base {
            "%tid" => Self::Tid(axis),
            "%ntid" => Self::Ntid(axis),
            "%ctaid" => Self::Ctaid(axis),
            "%nctaid" => Self::Nctaid(axis),
            "%laneid" => Self::Lane,
            "%warpid" => Self::Warp,
            "%nwarpid" => Self::NumWarps,
            "%lanemask_eq" => Self::LaneMaskEq,
            "%lanemask_lt" => Self::LaneMaskLt,
            "%lanemask_le" => Self::LaneMaskLe,
            "%lanemask_gt" => Self::LaneMaskGt,
            "%lanemask_ge" => Self::LaneMaskGe,
            "%dynamic_smem_size" => Self::DynamicShared,
            // One multiprocessor, and clusters of one block.
            "%smid" | "%gridid" | "%cluster_ctarank" | "%cluster_ctaid" | "%clusterid" => {
                Self::Zero
            }
            "%nsmid" | "%cluster_nctarank" | "%cluster_nctaid" => Self::One,
            _ => return None,
        })
    }
}

/// Slots given out so far.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    names: HashMap<String, (Width, Slot)>,
    constants: HashMap<(Width, u64), Slot>,
    specials: HashMap<Special, Slot>,
    n_words: u32,
    n_longs: u32,
    n_preds: u32,
}

impl Layout {
    fn take(&mut self, width: Width) -> Slot {
        let n = match width {
            Width::Word => &mut self.n_words,
            Width::Long => &mut self.n_longs,
            Width::Pred => &mut self.n_preds,
        };
        *n += 1;
        Slot(*n - 1)
    }

    /// The slot of the register `name`, new when it is first met.
    pub(super) fn register(&mut self, name: &str, width: Width) -> Slot {
        if let Some((_, slot)) = self.names.get(name) {
            return *slot;
        }
        let slot = self.take(width);
        self.names.insert(name.to_owned(), (width, slot));
        slot
    }

    /// A slot that holds a constant.
    pub(super) fn constant(&mut self, width: Width, bits: u64) -> Slot {
        if let Some(slot) = self.constants.get(&(width, bits)) {
            return *slot;
        }
        let slot = self.take(width);
        self.constants.insert((width, bits), slot);
        slot
    }

    /// The word slot of a special register.
    pub(super) fn special(&mut self, special: Special) -> Slot {
        if let Some(slot) = self.specials.get(&special) {
            return *slot;
        }
        let slot = self.take(Width::Word);
        self.specials.insert(special, slot);
        slot
    }

    /// A slot for a result that nobody reads.
    pub(super) fn sink(&mut self, width: Width) -> Slot {
        self.take(width)
    }

    /// Register files of a warp: zeros, and the constants.
    pub(crate) fn registers(&self) -> Registers {
        let mut registers = Registers {
            words: vec![[0; 32]; self.n_words as usize],
            longs: vec![[0; 32]; self.n_longs as usize],
            preds: vec![0; self.n_preds as usize],
        };
        for ((width, bits), slot) in &self.constants {
            let values = match width {
                Width::Pred => [bits & 1; 32],
                _ => [*bits; 32],
            };
            registers.set_bits((*width, *slot), u32::MAX, &values);
        }
        registers
    }

    /// The special registers in use.
    pub(crate) fn specials(&self) -> impl Iterator<Item = (Special, Slot)> {
        self.specials
            .iter()
            .map(|(special, slot)| (*special, *slot))
    }
}
