//! Comparisons and selection.

use half::{bf16, f16};

use super::Decoder;
use crate::code::{Alu, Op};
use crate::fault::PtxError;
use crate::registers::{Lane, Registers, Slot, Width};
use crate::rounding::flush;
use crate::text::Operand;
use crate::types::Type;

/// The lanes for which a comparison holds.
type Test = Box<dyn Fn(&Registers) -> u32 + Send + Sync>;

fn test<T: Lane>(a: Slot, b: Slot, f: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Test {
    Box::new(move |registers| {
        let (a, b) = (T::read(registers, a), T::read(registers, b));
        let mut held = 0;
        for lane in 0..32 {
            held |= u32::from(f(a[lane], b[lane])) << lane;
        }
        held
    })
}

/// An f32 whose subnormals are read as zeros.
#[derive(Clone, Copy, Default, PartialEq, PartialOrd)]
struct Flushed(f32);

impl Lane for Flushed {
    const WIDTH: Width = Width::Word;
    fn read(registers: &Registers, slot: Slot) -> [Self; 32] {
        f32::read(registers, slot).map(|value| Self(flush(value)))
    }
    fn write(registers: &mut Registers, slot: Slot, mask: u32, values: &[Self; 32]) {
        f32::write(registers, slot, mask, &values.map(|value| value.0));
    }
}

#[expect(
    clippy::neg_cmp_op_on_partial_ord,
    reason = "unordered operands must compare true"
)]
fn by_name<T: Lane + PartialOrd>(name: &str, a: Slot, b: Slot) -> Option<Test> {
    Some(match name {
        "eq" => test(a, b, |a: T, b: T| a == b),
        // Ordered: NaN is not unequal.
        "ne" => test(a, b, |a: T, b: T| a != b && a.partial_cmp(&b).is_some()),
        "lt" | "lo" => test(a, b, |a: T, b: T| a < b),
        "le" | "ls" => test(a, b, |a: T, b: T| a <= b),
        "gt" | "hi" => test(a, b, |a: T, b: T| a > b),
        "ge" | "hs" => test(a, b, |a: T, b: T| a >= b),
        "equ" => test(a, b, |a: T, b: T| a == b || a.partial_cmp(&b).is_none()),
        "neu" => test(a, b, |a: T, b: T| a != b),
        "ltu" => test(a, b, |a: T, b: T| !(a >= b)),
        "leu" => test(a, b, |a: T, b: T| !(a > b)),
        "gtu" => test(a, b, |a: T, b: T| !(a <= b)),
        "geu" => test(a, b, |a: T, b: T| !(a < b)),
        "num" => test(a, b, |a: T, b: T| a.partial_cmp(&b).is_some()),
        "nan" => test(a, b, |a: T, b: T| a.partial_cmp(&b).is_none()),
        _ => return None,
    })
}

fn set(registers: &mut Registers, slot: Slot, mask: u32, value: u32) {
    let pred = &mut registers.preds[slot.0 as usize];
    *pred = *pred & !mask | value & mask;
}

impl Decoder<'_> {
    pub(super) fn compare(&mut self) -> Result<Op, PtxError> {
        match self.parts[0] {
            "selp" => match self.ty()?.bytes() {
                8 => self.map3(|a: u64, b: u64, c: bool| if c { a } else { b }),
                _ => self.map3(|a: u32, b: u32, c: bool| if c { a } else { b }),
            },
            "slct" => match (self.ty()?.bytes(), self.types().get(1)) {
                (4, Some(Type::S32)) => {
                    self.map3(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b })
                }
                (4, Some(Type::F32)) => {
                    self.map3(|a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b })
                }
                _ => Err(self.unsupported("that type")),
            },
            "set" => self.set(),
            _ => self.setp(),
        }
    }

    /// The test that the opcode names, of the type given, on operands `first` and the next.
    fn test(&mut self, ty: Type, first: usize) -> Result<Test, PtxError> {
        let name = self.parts[1];
        let width = Self::width_of(ty);
        let (a, b) = (
            self.operand(first)?.clone(),
            self.operand(first + 1)?.clone(),
        );
        let (a, b) = (self.read(&a, width)?, self.read(&b, width)?);
        let test = match ty {
            Type::U16 | Type::B16 => by_name::<u16>(name, a, b),
            Type::S16 => by_name::<i16>(name, a, b),
            Type::U32 | Type::B32 => by_name::<u32>(name, a, b),
            Type::S32 => by_name::<i32>(name, a, b),
            Type::U64 | Type::B64 => by_name::<u64>(name, a, b),
            Type::S64 => by_name::<i64>(name, a, b),
            Type::F32 if self.has("ftz") => by_name::<Flushed>(name, a, b),
            Type::F32 => by_name::<f32>(name, a, b),
            Type::F64 => by_name::<f64>(name, a, b),
            Type::F16 if !self.has("ftz") => by_name::<f16>(name, a, b),
            Type::Bf16 => by_name::<bf16>(name, a, b),
            _ => None,
        };
        test.ok_or_else(|| self.unsupported("that comparison"))
    }

    fn setp(&mut self) -> Result<Op, PtxError> {
        let comparison = self.parts[1];
        self.only(&[comparison, "and", "or", "xor", "ftz"])?;
        let (p, q) = match self.operand(0)?.clone() {
            Operand::Pair(p, q) => (*p, Some(*q)),
            p => (p, None),
        };
        let p = self.write(&p, Width::Pred)?;
        let q = match q {
            Some(q) => Some(self.write(&q, Width::Pred)?),
            None => None,
        };
        let test = self.test(self.ty()?, 1)?;
        let combine: Option<fn(u32, u32) -> u32> = match () {
            () if self.has("and") => Some(|a, b| a & b),
            () if self.has("or") => Some(|a, b| a | b),
            () if self.has("xor") => Some(|a, b| a ^ b),
            () => None,
        };
        let third = match combine {
            Some(combine) => Some((combine, self.predicate(3)?)),
            None => None,
        };
        let alu: Alu = Box::new(move |registers, mask| {
            let held = test(registers);
            let (yes, no) = match third {
                Some((combine, (slot, flip))) => {
                    let other = registers.preds[slot.0 as usize] ^ flip;
                    (combine(held, other), combine(!held, other))
                }
                None => (held, !held),
            };
            set(registers, p, mask, yes);
            if let Some(q) = q {
                set(registers, q, mask, no);
            }
        });
        Ok(Op::Alu(alu))
    }

    fn set(&mut self) -> Result<Op, PtxError> {
        let comparison = self.parts[1];
        self.only(&[comparison, "ftz"])?;
        let [to, from] = self.types()[..] else {
            return Err(self.unsupported("that form"));
        };
        let yes = match to {
            Type::F32 => 1f32.to_bits(),
            Type::U32 | Type::S32 => u32::MAX,
            Type::F16 => 0x3C00,
            Type::Bf16 => 0x3F80,
            Type::U16 | Type::S16 => 0xFFFF,
            _ => return Err(self.unsupported("that type")),
        };
        let d = self.target::<u32>(0)?;
        let test = self.test(from, 1)?;
        let alu: Alu = Box::new(move |registers, mask| {
            let held = test(registers);
            let out = std::array::from_fn(|lane| if held >> lane & 1 == 1 { yes } else { 0 });
            u32::write(registers, d, mask, &out);
        });
        Ok(Op::Alu(alu))
    }
}
