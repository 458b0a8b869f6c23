//! Matrix multiplies of a warp: the tensor cores.

use half::f16;

use super::Decoder;
use super::matrix::all_lanes;
use crate::code::{Act, Op};
use crate::fault::PtxError;
use crate::fp8::Fp8;
use crate::registers::{Lane, Registers, Slot};
use crate::types::Type;
use crate::vector;

/// An input format of the tensor cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Bf16,
    F16,
    E4m3,
    E5m2,
    S8,
    U8,
}

impl Input {
    fn of(ty: Type) -> Option<Self> {
        Some(match ty {
            Type::Bf16 => Self::Bf16,
            Type::F16 => Self::F16,
            Type::E4m3 => Self::E4m3,
            Type::E5m2 => Self::E5m2,
            Type::S8 => Self::S8,
            Type::U8 => Self::U8,
            _ => return None,
        })
    }

    /// Values in one 32-bit register.
    fn per_word(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            _ => 4,
        }
    }

    fn is_integer(self) -> bool {
        matches!(self, Self::S8 | Self::U8)
    }

    /// The values in each lane's word.
    fn unpack(self, words: &[u32; 32]) -> [[f32; 4]; 32] {
        let halves =
            |f: fn(u16) -> f32| words.map(|w| [f(w as u16), f((w >> 16) as u16), 0.0, 0.0]);
        match self {
            Self::Bf16 => halves(|bits| f32::from_bits(u32::from(bits) << 16)),
            Self::F16 => halves(|bits| f16::from_bits(bits).to_f32()),
            Self::E4m3 => words.map(|word| word.to_le_bytes().map(|byte| Fp8::E4m3.value(byte))),
            Self::E5m2 => words.map(|word| word.to_le_bytes().map(|byte| Fp8::E5m2.value(byte))),
            Self::S8 => words.map(|word| word.to_le_bytes().map(|byte| f32::from(byte as i8))),
            Self::U8 => words.map(|word| word.to_le_bytes().map(f32::from)),
        }
    }
}

/// What a multiply is of.
#[derive(Clone, Copy, Debug)]
struct Shape {
    k: usize,
    a: Input,
    b: Input,
}

/// Rows of A: word `n` of a lane lies in row `lane / 4`, plus 8 for odd `n`, and in the second
/// half of K from `n = 2` on.
fn gather_a(registers: &Registers, slots: &[Slot], shape: Shape) -> [[f32; 32]; 16] {
    let mut a = [[0.0; 32]; 16];
    let per_word = shape.a.per_word();
    for (n, slot) in slots.iter().enumerate() {
        let words = shape.a.unpack(&registers.words[slot.0 as usize]);
        for (lane, values) in words.iter().enumerate() {
            let row = lane / 4 + 8 * (n & 1);
            let k = per_word * (lane % 4) + 4 * per_word * (n / 2);
            a[row][k..k + per_word].copy_from_slice(&values[..per_word]);
        }
    }
    a
}

/// B by K and column: word `n` of a lane lies in column `lane / 4`.
fn gather_b(registers: &Registers, slots: &[Slot], shape: Shape) -> [[f32; 8]; 32] {
    let mut b = [[0.0; 8]; 32];
    let per_word = shape.b.per_word();
    for (n, slot) in slots.iter().enumerate() {
        let words = shape.b.unpack(&registers.words[slot.0 as usize]);
        for (lane, values) in words.iter().enumerate() {
            let k = per_word * (lane % 4) + 4 * per_word * n;
            for (at, value) in values[..per_word].iter().enumerate() {
                b[k + at][lane / 4] = *value;
            }
        }
    }
    b
}

/// Row and column of value `n` of a lane in C and D.
fn place(lane: usize, n: usize) -> (usize, usize) {
    (lane / 4 + 8 * (n / 2), 2 * (lane % 4) + (n & 1))
}

fn f32_sums(registers: &mut Registers, shape: Shape, slots: &Slots) {
    let a = gather_a(registers, &slots.a, shape);
    let b = gather_b(registers, &slots.b, shape);
    let mut sums = [[0.0; 8]; 16];
    for (n, slot) in slots.c.iter().enumerate() {
        for (lane, value) in f32::read(registers, *slot).into_iter().enumerate() {
            let (row, column) = place(lane, n);
            sums[row][column] = value;
        }
    }
    vector::matrix(&a, &b, shape.k, &mut sums);
    for (n, slot) in slots.d.iter().enumerate() {
        let out = std::array::from_fn(|lane| {
            let (row, column) = place(lane, n);
            sums[row][column]
        });
        f32::write(registers, *slot, u32::MAX, &out);
    }
}

/// f16 accumulators come in pairs; the sum is kept in f32 and rounded once.
fn f16_sums(registers: &mut Registers, shape: Shape, slots: &Slots) {
    let a = gather_a(registers, &slots.a, shape);
    let b = gather_b(registers, &slots.b, shape);
    let mut sums = [[0.0; 8]; 16];
    for (n, slot) in slots.c.iter().enumerate() {
        let pairs = Input::F16.unpack(&u32::read(registers, *slot));
        for (lane, pair) in pairs.iter().enumerate() {
            for (half, value) in pair[..2].iter().enumerate() {
                let (row, column) = place(lane, 2 * n + half);
                sums[row][column] = *value;
            }
        }
    }
    vector::matrix(&a, &b, shape.k, &mut sums);
    for (n, slot) in slots.d.iter().enumerate() {
        let out = std::array::from_fn(|lane| {
            let half = |half: usize| {
                let (row, column) = place(lane, 2 * n + half);
                u32::from(f16::from_f32(sums[row][column]).to_bits())
            };
            half(1) << 16 | half(0)
        });
        u32::write(registers, *slot, u32::MAX, &out);
    }
}

/// Integer sums are exact in f32 up to 2^24, and 32 products stay below 2^21.
fn i32_sums(registers: &mut Registers, shape: Shape, saturate: bool, slots: &Slots) {
    let a = gather_a(registers, &slots.a, shape);
    let b = gather_b(registers, &slots.b, shape);
    let mut sums = [[0.0; 8]; 16];
    vector::matrix(&a, &b, shape.k, &mut sums);
    for (c, d) in slots
        .c
        .iter()
        .zip(&slots.d)
        .enumerate()
        .map(|(n, (c, d))| ((n, c), d))
    {
        let (n, c) = c;
        let before = i32::read(registers, *c);
        let out = std::array::from_fn(|lane| {
            let (row, column) = place(lane, n);
            let sum = sums[row][column] as i32;
            if saturate {
                before[lane].saturating_add(sum)
            } else {
                before[lane].wrapping_add(sum)
            }
        });
        i32::write(registers, *d, u32::MAX, &out);
    }
}

/// Registers of a multiply.
struct Slots {
    d: Vec<Slot>,
    a: Vec<Slot>,
    b: Vec<Slot>,
    c: Vec<Slot>,
}

const SHAPES: [(&str, usize); 3] = [("m16n8k8", 8), ("m16n8k16", 16), ("m16n8k32", 32)];

impl Decoder<'_> {
    /// `mma.sync.aligned.shape.row.col.dtype.atype.btype.ctype d, a, b, c;`
    pub(super) fn multiply(&mut self) -> Result<Op, PtxError> {
        let shape = SHAPES.iter().find(|(name, _)| self.has(name));
        let (name, k) = *shape.ok_or_else(|| self.unsupported("that shape"))?;
        self.only(&[
            "sync",
            "aligned",
            name,
            "row",
            "col",
            "satfinite",
            "kind::f8f6f4",
        ])?;
        let types = self.types();
        let [d, a, b, c] = types[..] else {
            return Err(self.unsupported("that form"));
        };
        let (Some(a), Some(b)) = (Input::of(a), Input::of(b)) else {
            return Err(self.unsupported("that input type"));
        };
        let words = |input: Input, rows: usize| rows * k / 32 / input.per_word();
        let slots = Slots {
            d: self.target_words(0)?,
            a: self.source_words(1)?,
            b: self.source_words(2)?,
            c: self.source_words(3)?,
        };
        let sums = if d == Type::F16 { 2 } else { 4 };
        let lens = [slots.d.len(), slots.a.len(), slots.b.len(), slots.c.len()];
        if lens != [sums, words(a, 16), words(b, 8), sums] || words(b, 8) == 0 {
            return Err(self.unsupported("that combination of shape and types"));
        }
        let shape = Shape { k, a, b };
        let saturate = self.has("satfinite");
        let sum: fn(&mut Registers, Shape, bool, &Slots) =
            match (d, c, a.is_integer() && b.is_integer()) {
                (Type::F32, Type::F32, false) => |r, shape, _, slots| f32_sums(r, shape, slots),
                (Type::F16, Type::F16, false) => |r, shape, _, slots| f16_sums(r, shape, slots),
                (Type::S32, Type::S32, true) => i32_sums,
                _ => return Err(self.unsupported("that combination of types")),
            };
        let act: Act = Box::new(move |context, active| {
            all_lanes("mma", active)?;
            context.counters.mma += 1;
            sum(context.registers, shape, saturate, &slots);
            Ok(())
        });
        Ok(Op::Act(act))
    }
}
