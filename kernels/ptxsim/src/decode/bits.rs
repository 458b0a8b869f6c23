//! Logic, shifts and bit fields.

use super::Decoder;
use crate::code::{Alu, Op};
use crate::fault::PtxError;
use crate::registers::Width;
use crate::types::Type;

/// Bits `pos..pos+len` of `value`; above bit 63 zeros, or copies of the sign.
fn extract(value: u64, bits: u32, signed: bool, pos: u32, len: u32) -> u64 {
    let msb = bits - 1;
    if len == 0 {
        return 0;
    }
    let sign_at = (pos + len - 1).min(msb);
    let sign = signed && value >> sign_at & 1 == 1;
    let field = if pos > msb { 0 } else { value >> pos };
    let n = len.min(bits.saturating_sub(pos));
    let low = |n: u32| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    let kept = field & low(n);
    if sign { kept | !low(n) } else { kept }
}

/// `b` with bits `pos..pos+len` from the low ones of `a`.
fn insert(a: u64, b: u64, bits: u32, pos: u32, len: u32) -> u64 {
    if pos >= bits || len == 0 {
        return b;
    }
    let low = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    b & !(low << pos) | (a & low) << pos
}

/// Each byte of the result is the byte of `b:a` that a nibble of `selector` names; with its
/// high bit the byte's sign, spread.
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut out = 0;
    for at in 0..4 {
        let nibble = selector >> (4 * at) & 0xF;
        let byte = (bytes >> (8 * (nibble & 7))) as u8;
        let byte = match (nibble & 8 != 0, byte & 0x80 != 0) {
            (false, _) => byte,
            (true, true) => 0xFF,
            (true, false) => 0,
        };
        out |= u32::from(byte) << (8 * at);
    }
    out
}

fn lop3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut out = 0;
    for row in 0..8 {
        if table >> row & 1 == 1 {
            let a = if row & 4 != 0 { a } else { !a };
            let b = if row & 2 != 0 { b } else { !b };
            let c = if row & 1 != 0 { c } else { !c };
            out |= a & b & c;
        }
    }
    out
}

impl Decoder<'_> {
    pub(super) fn bits(&mut self) -> Result<Op, PtxError> {
        self.only(&["l", "r", "wrap", "clamp", "shiftamt"])?;
        match self.parts[0] {
            "and" | "or" | "xor" | "not" | "cnot" => self.logic(),
            "shl" => match self.ty()?.bytes() {
                2 => self.map2(|a: u16, n: u32| a.checked_shl(n).unwrap_or(0)),
                4 => self.map2(|a: u32, n: u32| a.checked_shl(n).unwrap_or(0)),
                _ => self.map2(|a: u64, n: u32| a.checked_shl(n).unwrap_or(0)),
            },
            "shr" => match self.ty()? {
                Type::S16 => self.map2(|a: i16, n: u32| a >> n.min(15)),
                Type::S32 => self.map2(|a: i32, n: u32| a >> n.min(31)),
                Type::S64 => self.map2(|a: i64, n: u32| a >> n.min(63)),
                Type::B16 | Type::U16 => self.map2(|a: u16, n: u32| a.checked_shr(n).unwrap_or(0)),
                Type::B32 | Type::U32 => self.map2(|a: u32, n: u32| a.checked_shr(n).unwrap_or(0)),
                _ => self.map2(|a: u64, n: u32| a.checked_shr(n).unwrap_or(0)),
            },
            "shf" => self.funnel(),
            "bfe" | "bfi" => self.field(),
            "prmt" if self.parts.len() == 2 => self.map3(permute),
            "lop3" if self.parts.len() == 2 => {
                let table = self.integer_constant(4)? as u32;
                self.map4(move |a: u32, b: u32, c: u32, _: u32| lop3(a, b, c, table))
            }
            "popc" if self.ty()?.bytes() == 4 => self.map1(u32::count_ones),
            "popc" => self.map1(u64::count_ones),
            "clz" if self.ty()?.bytes() == 4 => self.map1(u32::leading_zeros),
            "clz" => self.map1(u64::leading_zeros),
            "brev" if self.ty()?.bytes() == 4 => self.map1(u32::reverse_bits),
            "brev" => self.map1(u64::reverse_bits),
            "bfind" => self.find(),
            "dp4a" => self.dot(),
            _ => Err(self.unsupported("that form")),
        }
    }

    fn logic(&mut self) -> Result<Op, PtxError> {
        let ty = self.ty()?;
        if ty == Type::Pred {
            return self.predicate_logic();
        }
        macro_rules! logic {
            ($T:ty) => {
                match self.parts[0] {
                    "and" => self.map2(|a: $T, b: $T| a & b),
                    "or" => self.map2(|a: $T, b: $T| a | b),
                    "xor" => self.map2(|a: $T, b: $T| a ^ b),
                    "not" => self.map1(|a: $T| !a),
                    _ => self.map1(|a: $T| <$T>::from(a == 0)),
                }
            };
        }
        match ty.bytes() {
            2 => logic!(u16),
            4 => logic!(u32),
            _ => logic!(u64),
        }
    }

    fn predicate_logic(&mut self) -> Result<Op, PtxError> {
        let d = self.target::<bool>(0)?;
        let (a, flip) = self.predicate(1)?;
        if self.parts[0] == "not" {
            let alu: Alu = Box::new(move |registers, mask| {
                let value = !(registers.preds[a.0 as usize] ^ flip);
                let d = &mut registers.preds[d.0 as usize];
                *d = *d & !mask | value & mask;
            });
            return Ok(Op::Alu(alu));
        }
        let (b, flip_b) = self.predicate(2)?;
        let f: fn(u32, u32) -> u32 = match self.parts[0] {
            "and" => |a, b| a & b,
            "or" => |a, b| a | b,
            "xor" => |a, b| a ^ b,
            _ => return Err(self.unsupported("that form")),
        };
        let alu: Alu = Box::new(move |registers, mask| {
            let preds = &mut registers.preds;
            let value = f(preds[a.0 as usize] ^ flip, preds[b.0 as usize] ^ flip_b);
            let d = &mut preds[d.0 as usize];
            *d = *d & !mask | value & mask;
        });
        Ok(Op::Alu(alu))
    }

    fn funnel(&mut self) -> Result<Op, PtxError> {
        let clamp = self.has("clamp");
        let amount = move |n: u32| if clamp { n.min(32) } else { n & 31 };
        let joined = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
        if self.has("l") {
            self.map3(move |a: u32, b: u32, n: u32| ((joined(a, b) << amount(n)) >> 32) as u32)
        } else {
            self.map3(move |a: u32, b: u32, n: u32| (joined(a, b) >> amount(n)) as u32)
        }
    }

    fn field(&mut self) -> Result<Op, PtxError> {
        let ty = self.ty()?;
        let (bits, signed) = (8 * ty.bytes() as u32, ty.is_signed());
        match (self.parts[0], bits) {
            ("bfe", 32) => self.map3(move |a: u32, pos: u32, len: u32| {
                extract(u64::from(a), bits, signed, pos & 255, len & 255) as u32
            }),
            ("bfe", _) => self.map3(move |a: u64, pos: u32, len: u32| {
                extract(a, bits, signed, pos & 255, len & 255)
            }),
            (_, 32) => self.map4(move |a: u32, b: u32, pos: u32, len: u32| {
                insert(u64::from(a), u64::from(b), bits, pos & 255, len & 255) as u32
            }),
            _ => self.map4(move |a: u64, b: u64, pos: u32, len: u32| {
                insert(a, b, bits, pos & 255, len & 255)
            }),
        }
    }

    fn find(&mut self) -> Result<Op, PtxError> {
        let amount = self.has("shiftamt");
        let found = move |value: u64, bits: u32| match (value, amount) {
            (0, _) => u32::MAX,
            (value, false) => 63 - value.leading_zeros(),
            (value, true) => bits - 1 - (63 - value.leading_zeros()),
        };
        match self.ty()? {
            Type::U32 => self.map1(move |a: u32| found(u64::from(a), 32)),
            Type::U64 => self.map1(move |a: u64| found(a, 64)),
            Type::S32 => self.map1(move |a: i32| found(u64::from((a ^ (a >> 31)) as u32), 32)),
            Type::S64 => self.map1(move |a: i64| found((a ^ (a >> 63)) as u64, 64)),
            _ => Err(self.unsupported("that type")),
        }
    }

    fn dot(&mut self) -> Result<Op, PtxError> {
        let types = self.types();
        let signed = |at: usize| types.get(at).is_some_and(|ty| ty.is_signed());
        let (a_signed, b_signed) = (signed(0), signed(1));
        let part = |value: u32, at: u32, signed: bool| {
            let byte = (value >> (8 * at)) as u8;
            if signed {
                i32::from(byte as i8)
            } else {
                i32::from(byte)
            }
        };
        self.map3(move |a: u32, b: u32, c: i32| {
            (0..4).fold(c, |sum, at| {
                sum.wrapping_add(part(a, at, a_signed) * part(b, at, b_signed))
            })
        })
    }

    /// Slot and width of an operand that is a register of either width.
    pub(super) fn any_source(
        &mut self,
        idx: usize,
    ) -> Result<(Width, crate::registers::Slot), PtxError> {
        let operand = self.operand(idx)?.clone();
        let width = self.register_width(&operand).unwrap_or(Width::Word);
        Ok((width, self.read(&operand, width)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        assert_eq!(extract(0xABCD_1234, 32, false, 8, 8), 0x12);
        assert_eq!(
            extract(0xABCD_9234, 32, true, 8, 8) as i32,
            0x92u8 as i8 as i32
        );
        assert_eq!(extract(0x8000_0000, 32, true, 28, 8) as i32, -8);
        assert_eq!(extract(5, 32, false, 40, 3), 0);
        assert_eq!(insert(0xFF, 0x1234_5678, 32, 8, 4), 0x1234_5F78);
        assert_eq!(insert(0xFF, 7, 32, 32, 4), 7);
    }

    #[test]
    fn permutations_and_tables() {
        assert_eq!(permute(0x3322_1100, 0x7766_5544, 0x7531), 0x7755_3311);
        assert_eq!(permute(0x0000_80FF, 0, 0x8899), 0xFFFF_FFFF);
        assert_eq!(permute(0x7F, 0, 0x8888), 0);
        let (a, b, c) = (0xF0F0_1234, 0xCCCC_5678, 0xAAAA_9ABC);
        assert_eq!(lop3(a, b, c, 0xE8), a & b | a & c | b & c);
        assert_eq!(lop3(a, b, c, 0x96), a ^ b ^ c);
        assert_eq!(lop3(a, b, c, 0x40), a & b & !c);
    }
}
