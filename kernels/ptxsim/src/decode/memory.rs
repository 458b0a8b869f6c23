//! Loads and stores.

use super::Decoder;
use crate::address;
use crate::code::{Act, Op};
use crate::fault::{PtxError, Space};
use crate::registers::{Registers, Slot, Width};
use crate::run::Shape;
use crate::text::Operand;
use crate::types::Type;

/// An address operand: a register plus an offset, or an offset alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    base: Option<(Width, Slot)>,
    offset: i64,
}

impl Address {
    #[inline]
    pub(crate) fn lanes(self, registers: &Registers) -> [u64; 32] {
        match self.base {
            None => [self.offset as u64; 32],
            // 32-bit addresses wrap as such.
            Some((Width::Word, slot)) => registers.words[slot.0 as usize]
                .map(|base| u64::from(base.wrapping_add(self.offset as u32))),
            Some((_, slot)) => {
                registers.longs[slot.0 as usize].map(|base| base.wrapping_add(self.offset as u64))
            }
        }
    }
}

/// Hints about caches and order, which change nothing here.
const HINTS: [&str; 44] = [
    "ca",
    "cg",
    "cs",
    "cv",
    "lu",
    "wb",
    "wt",
    "nc",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "weak",
    "cta",
    "gpu",
    "sys",
    "cluster",
    "mmio",
    "v2",
    "v4",
    "global",
    "shared",
    "local",
    "param",
    "const",
    "shared::cta",
    "param::entry",
    "L1::evict_normal",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L1::evict_unchanged",
    "L2::evict_last",
    "L2::evict_first",
    "L2::evict_normal",
    "L2::cache_hint",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L1",
    "L2",
    "acq_rel",
    "sc",
    "alias",
];

impl Decoder<'_> {
    /// The state space of a memory instruction; none means generic.
    pub(super) fn memory_space(&self) -> Option<Space> {
        let named = |part: &&str| match *part {
            "global" => Some(Space::Global),
            "shared" | "shared::cta" | "shared::cluster" => Some(Space::Shared),
            "local" => Some(Space::Local),
            "param" | "param::entry" => Some(Space::Param),
            "const" => Some(Space::Module),
            _ => None,
        };
        self.parts[1..].iter().find_map(named)
    }

    /// The address operand at `idx`.
    pub(super) fn address(&mut self, idx: usize) -> Result<Address, PtxError> {
        let Operand::Address { base, offset, .. } = self.operand(idx)?.clone() else {
            return Err(self.error(format!("operand {idx} must be an address")));
        };
        if let Operand::Name(name) = &*base
            && let Some((space, at)) = self.symbols.get(name)
        {
            let at = match space {
                Space::Module => address::to_generic(*at, address::window(Space::Module)),
                _ => *at,
            };
            let offset = at as i64 + offset;
            return Ok(Address { base: None, offset });
        }
        if let Operand::Int(at) = *base {
            let offset = at as i64 + offset;
            return Ok(Address { base: None, offset });
        }
        let width = self.register_width(&base);
        let width = width.ok_or_else(|| self.error(format!("{base:?} is not an address")))?;
        let base = Some((width, self.read(&base, width)?));
        Ok(Address { base, offset })
    }

    pub(super) fn memory(&mut self) -> Result<Op, PtxError> {
        match self.parts[0] {
            "prefetch" | "prefetchu" | "discard" | "applypriority" => Ok(Op::Nothing),
            "st" => self.store(),
            _ => self.load(),
        }
    }

    fn shape(&self) -> Result<(Type, Shape), PtxError> {
        self.only(&HINTS)?;
        let ty = self.ty()?;
        let n = match () {
            () if self.has("v4") => 4,
            () if self.has("v2") => 2,
            () => 1,
        };
        let bytes = ty.bytes();
        if bytes > 8 || bytes * n > 16 {
            return Err(self.unsupported("an access that wide"));
        }
        Ok((ty, Shape { bytes, n }))
    }

    fn load(&mut self) -> Result<Op, PtxError> {
        let (ty, shape) = self.shape()?;
        let space = self.memory_space();
        let address = self.address(1)?;
        let mut targets = Vec::new();
        for target in self.elements(0)? {
            let width = self.register_width(&target).unwrap_or(match shape.bytes {
                8 => Width::Long,
                _ => Width::Word,
            });
            let keep = match &target {
                Operand::Name(name) => self.declared(name).map_or(8, Type::bytes),
                _ => 8,
            };
            targets.push((width, self.write(&target, width)?, keep));
        }
        if targets.len() != shape.n {
            return Err(self.error("operands do not fit the vector"));
        }
        let signed = ty.is_signed();
        let shift = 64 - 8 * shape.bytes as u32;
        let act: Act = Box::new(move |context, mask| {
            let addresses = address.lanes(context.registers);
            let mut out = [[0; 32]; 4];
            context.load(space, mask, &addresses, shape, &mut out)?;
            for ((width, slot, keep), values) in targets.iter().zip(&mut out) {
                if signed {
                    let keep = u64::MAX >> (64 - 8 * keep);
                    for value in values.iter_mut() {
                        *value = ((*value << shift) as i64 >> shift) as u64 & keep;
                    }
                }
                context.registers.set_bits((*width, *slot), mask, values);
            }
            Ok(())
        });
        Ok(Op::Act(act))
    }

    fn store(&mut self) -> Result<Op, PtxError> {
        let (ty, shape) = self.shape()?;
        let space = self.memory_space();
        let address = self.address(0)?;
        let mut sources = Vec::new();
        for source in self.elements(1)? {
            let width = self.register_width(&source).unwrap_or(Self::width_of(ty));
            sources.push((width, self.read(&source, width)?));
        }
        if sources.len() != shape.n {
            return Err(self.error("operands do not fit the vector"));
        }
        let act: Act = Box::new(move |context, mask| {
            let addresses = address.lanes(context.registers);
            let mut values = [[0; 32]; 4];
            for (source, values) in sources.iter().zip(&mut values) {
                *values = context.registers.bits(*source);
            }
            context.store(space, mask, &addresses, shape, &values)
        });
        Ok(Op::Act(act))
    }
}
