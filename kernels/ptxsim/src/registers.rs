//! The registers of a warp: for each register 32 lanes side by side.

use half::{bf16, f16};

/// Index of a register in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot(pub(crate) u32);

/// Which file holds a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Width {
    /// Up to 32 bits; narrower ones are held zero-extended.
    Word,
    /// 64 bits.
    Long,
    /// A predicate: one bit a lane.
    Pred,
}

/// Register files of one warp. Constants and special registers have slots as well, so that
/// every source operand is an index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) words: Vec<[u32; 32]>,
    pub(crate) longs: Vec<[u64; 32]>,
    pub(crate) preds: Vec<u32>,
}

/// A type that lanes of a register can be taken for.
pub(crate) trait Lane: Copy + Default + Send + Sync + 'static {
    const WIDTH: Width;
    fn read(registers: &Registers, slot: Slot) -> [Self; 32];
    fn write(registers: &mut Registers, slot: Slot, mask: u32, values: &[Self; 32]);
}

#[inline]
fn blend<T: Copy>(into: &mut [T; 32], mask: u32, values: [T; 32]) {
    if mask == u32::MAX {
        *into = values;
        return;
    }
    for (lane, (into, value)) in into.iter_mut().zip(values).enumerate() {
        if mask >> lane & 1 == 1 {
            *into = value;
        }
    }
}

macro_rules! lane {
    ($($ty:ty, $file:ident, $width:ident, $of:expr, $bits:expr;)*) => {$(
        impl Lane for $ty {
            const WIDTH: Width = Width::$width;
            #[inline]
            fn read(registers: &Registers, slot: Slot) -> [Self; 32] {
                registers.$file[slot.0 as usize].map($of)
            }
            #[inline]
            fn write(registers: &mut Registers, slot: Slot, mask: u32, values: &[Self; 32]) {
                blend(&mut registers.$file[slot.0 as usize], mask, values.map($bits));
            }
        }
    )*};
}

lane! {
    u8, words, Word, |bits| bits as u8, u32::from;
    i8, words, Word, |bits| bits as i8, |value| u32::from(value as u8);
    u16, words, Word, |bits| bits as u16, u32::from;
    i16, words, Word, |bits| bits as i16, |value| u32::from(value as u16);
    u32, words, Word, |bits| bits, |value| value;
    i32, words, Word, |bits| bits as i32, |value| value as u32;
    f32, words, Word, f32::from_bits, f32::to_bits;
    f16, words, Word, |bits| f16::from_bits(bits as u16), |value| u32::from(value.to_bits());
    bf16, words, Word, |bits| bf16::from_bits(bits as u16), |value| u32::from(value.to_bits());
    u64, longs, Long, |bits| bits, |value| value;
    i64, longs, Long, |bits| bits as i64, |value| value as u64;
    f64, longs, Long, f64::from_bits, f64::to_bits;
}

impl Lane for bool {
    const WIDTH: Width = Width::Pred;
    #[inline]
    fn read(registers: &Registers, slot: Slot) -> [Self; 32] {
        let bits = registers.preds[slot.0 as usize];
        std::array::from_fn(|lane| bits >> lane & 1 == 1)
    }
    #[inline]
    fn write(registers: &mut Registers, slot: Slot, mask: u32, values: &[Self; 32]) {
        let mut bits = 0;
        for (lane, value) in values.iter().enumerate() {
            bits |= u32::from(*value) << lane;
        }
        let pred = &mut registers.preds[slot.0 as usize];
        *pred = *pred & !mask | bits & mask;
    }
}

impl Registers {
    /// Lanes of a word or long register as 64 bits.
    #[inline]
    pub(crate) fn bits(&self, (width, slot): (Width, Slot)) -> [u64; 32] {
        match width {
            Width::Word => self.words[slot.0 as usize].map(u64::from),
            Width::Long => self.longs[slot.0 as usize],
            Width::Pred => bool::read(self, slot).map(u64::from),
        }
    }

    /// Sets lanes of a register from the low bits of `values`.
    #[inline]
    pub(crate) fn set_bits(&mut self, to: (Width, Slot), mask: u32, values: &[u64; 32]) {
        match to.0 {
            Width::Word => u32::write(self, to.1, mask, &values.map(|value| value as u32)),
            Width::Long => u64::write(self, to.1, mask, values),
            Width::Pred => bool::write(self, to.1, mask, &values.map(|value| value & 1 == 1)),
        }
    }
}

/// The lanes whose bit is set, rising.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        (lane < 32).then(|| {
            mask &= mask - 1;
            lane as usize
        })
    })
}
