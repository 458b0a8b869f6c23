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

/// The lanes, each by `f`. A plain loop: it is compiled to vectors where `map` is often a call.
#[inline(always)]
fn each<T: Copy, R: Copy + Default>(from: &[T; 32], f: impl Fn(T) -> R) -> [R; 32] {
    let mut out = [R::default(); 32];
    for lane in 0..32 {
        out[lane] = f(from[lane]);
    }
    out
}

/// Sets the lanes of the mask to `f` of theirs.
#[inline(always)]
fn blend<T: Copy, B: Copy>(into: &mut [B; 32], mask: u32, values: &[T; 32], f: impl Fn(T) -> B) {
    if mask == u32::MAX {
        for lane in 0..32 {
            into[lane] = f(values[lane]);
        }
        return;
    }
    for lane in lanes(mask) {
        into[lane] = f(values[lane]);
    }
}

macro_rules! lane {
    ($($ty:ty, $file:ident, $width:ident, $of:expr, $bits:expr;)*) => {$(
        impl Lane for $ty {
            const WIDTH: Width = Width::$width;
            #[inline]
            fn read(registers: &Registers, slot: Slot) -> [Self; 32] {
                each(&registers.$file[slot.0 as usize], $of)
            }
            #[inline]
            fn write(registers: &mut Registers, slot: Slot, mask: u32, values: &[Self; 32]) {
                blend(&mut registers.$file[slot.0 as usize], mask, values, $bits);
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
            Width::Word => each(&self.words[slot.0 as usize], u64::from),
            Width::Long => self.longs[slot.0 as usize],
            Width::Pred => bool::read(self, slot).map(u64::from),
        }
    }

    /// Sets lanes of a register from the low bits of `values`.
    #[inline]
    pub(crate) fn set_bits(&mut self, to: (Width, Slot), mask: u32, values: &[u64; 32]) {
        match to.0 {
            Width::Word => {
                let words = &mut self.words[to.1.0 as usize];
                blend(words, mask, values, |value| value as u32);
            }
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
