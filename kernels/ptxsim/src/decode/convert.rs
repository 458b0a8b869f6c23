//! Conversions between types. Registers may be wider than the types named.

use half::{bf16, f16};

use super::Decoder;
use crate::code::{Alu, Op};
use crate::fault::PtxError;
use crate::fp8::Fp8;
use crate::registers::{Slot, Width};
use crate::rounding::{Round, flush, saturate, sticky, to_f32};
use crate::text::Operand;
use crate::types::Type;

const MODIFIERS: [&str; 13] = [
    "rn",
    "rna",
    "rz",
    "rm",
    "rp",
    "rni",
    "rzi",
    "rmi",
    "rpi",
    "ftz",
    "sat",
    "satfinite",
    "relu",
];

/// An integer's bits, extended to 64 by its own sign.
fn extend(bits: u64, ty: Type) -> i128 {
    match ty {
        Type::U8 => i128::from(bits as u8),
        Type::S8 => i128::from(bits as i8),
        Type::U16 => i128::from(bits as u16),
        Type::S16 => i128::from(bits as i16),
        Type::U32 => i128::from(bits as u32),
        Type::S32 => i128::from(bits as i32),
        Type::U64 => i128::from(bits),
        _ => i128::from(bits as i64),
    }
}

/// Least and greatest value of an integer type.
fn range(ty: Type) -> (i128, i128) {
    let bits = 8 * ty.bytes() as u32;
    if ty.is_signed() {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    }
}

fn float_to_integer(value: f64, from: Type, to: Type, round: &str) -> i128 {
    if value.is_nan() {
        let wide = from == Type::F64 || to.bytes() == 8;
        return if wide { 1 << (8 * to.bytes() - 1) } else { 0 };
    }
    let rounded = match round {
        "rni" => value.round_ties_even(),
        "rmi" => value.floor(),
        "rpi" => value.ceil(),
        _ => value.trunc(),
    };
    let (least, greatest) = range(to);
    (rounded as i128).clamp(least, greatest)
}

/// The value of a float's bits.
fn decode(bits: u64, ty: Type) -> f64 {
    match ty {
        Type::F16 => f16::from_bits(bits as u16).to_f64(),
        Type::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        Type::F32 => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    }
}

/// The float nearest to a value, as bits.
fn encode(value: f64, ty: Type, round: Round) -> u64 {
    if value.is_nan() {
        return match ty {
            Type::F64 => 0x7FF8 << 48,
            Type::F32 => 0x7FFF_FFFF,
            _ => 0x7FFF,
        };
    }
    match ty {
        Type::F16 if round == Round::Zero => {
            let near = f16::from_f32(sticky(value));
            let over = near.to_f64().abs() > value.abs();
            u64::from(near.to_bits() - u16::from(over))
        }
        Type::Bf16 if round == Round::Zero => {
            let near = bf16::from_f32(sticky(value));
            let over = near.to_f64().abs() > value.abs();
            u64::from(near.to_bits() - u16::from(over))
        }
        Type::F16 => u64::from(f16::from_f32(sticky(value)).to_bits()),
        Type::Bf16 => u64::from(bf16::from_f32(sticky(value)).to_bits()),
        Type::F32 => u64::from(to_f32((value, 0.0), round).to_bits()),
        _ => value.to_bits(),
    }
}

fn to_integral(value: f64, parts: &[&str]) -> f64 {
    match parts {
        parts if parts.contains(&"rni") => value.round_ties_even(),
        parts if parts.contains(&"rzi") => value.trunc(),
        parts if parts.contains(&"rmi") => value.floor(),
        parts if parts.contains(&"rpi") => value.ceil(),
        _ => value,
    }
}

impl Decoder<'_> {
    pub(super) fn convert(&mut self) -> Result<Op, PtxError> {
        self.only(&MODIFIERS)?;
        let [to, from] = self.types()[..] else {
            return Err(self.unsupported("that form"));
        };
        if matches!(to, Type::E4m3x2 | Type::E5m2x2 | Type::F16x2 | Type::Bf16x2) {
            return self.convert_pair(to, from);
        }
        if self.has("relu") || self.has("rna") || self.has("satfinite") {
            return Err(self.unsupported("that modifier for these types"));
        }
        match (to.is_float(), from.is_float()) {
            (false, false) => self.integer_to_integer(to, from),
            (true, false) => self.integer_to_float(to, from),
            (false, true) => self.float_to_integer(to, from),
            (true, true) => self.float_to_float(to, from),
        }
    }

    /// Any function of an operand's bits; the result is extended to the register by its sign.
    fn of_bits(&mut self, f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Result<Op, PtxError> {
        let (d, a) = (self.any_target(0)?, self.any_source(1)?);
        let alu: Alu = Box::new(move |registers, mask| {
            let out = registers.bits(a).map(&f);
            registers.set_bits(d, mask, &out);
        });
        Ok(Op::Alu(alu))
    }

    fn any_target(&mut self, idx: usize) -> Result<(Width, Slot), PtxError> {
        let operand = self.operand(idx)?.clone();
        let width = self.register_width(&operand).unwrap_or(Width::Word);
        Ok((width, self.write(&operand, width)?))
    }

    /// What keeps a word register's value zero-extended to its declared size.
    fn target_mask(&self) -> Result<u64, PtxError> {
        let Operand::Name(name) = self.operand(0)? else {
            return Ok(u64::MAX);
        };
        Ok(match self.declared(name).map_or(8, Type::bytes) {
            8 => u64::MAX,
            bytes => (1 << (8 * bytes)) - 1,
        })
    }

    fn integer_to_integer(&mut self, to: Type, from: Type) -> Result<Op, PtxError> {
        // The hot ones, by plain lane types.
        if !self.has("sat") && self.of_usual_registers(to, from)? {
            match (to, from) {
                (Type::U64 | Type::S64, Type::U32) => return self.map1(|a: u32| u64::from(a)),
                (Type::U64 | Type::S64, Type::S32) => return self.map1(|a: i32| i64::from(a)),
                (Type::U32 | Type::S32, Type::U64 | Type::S64) => {
                    return self.map1(|a: u64| a as u32);
                }
                (Type::U32 | Type::S32, Type::U16) => return self.map1(|a: u16| u32::from(a)),
                (Type::U32 | Type::S32, Type::S16) => return self.map1(|a: i16| i32::from(a)),
                (Type::U16 | Type::S16, Type::U32 | Type::S32) => {
                    return self.map1(|a: u32| a as u16);
                }
                _ => {}
            }
        }
        let (sat, mask) = (self.has("sat"), self.target_mask()?);
        let (least, greatest) = range(to);
        self.of_bits(move |bits| {
            let value = extend(bits, from);
            let value = if sat {
                value.clamp(least, greatest)
            } else {
                value
            };
            extend(value as u64, to) as u64 & mask
        })
    }

    /// Whether both registers are as wide as the types say.
    fn of_usual_registers(&self, to: Type, from: Type) -> Result<bool, PtxError> {
        let bytes = |operand: &Operand| match operand {
            Operand::Name(name) => self.declared(name).map(Type::bytes),
            _ => None,
        };
        let (d, a) = (bytes(self.operand(0)?), bytes(self.operand(1)?));
        Ok(d == Some(to.bytes()) && a == Some(from.bytes()))
    }

    fn integer_to_float(&mut self, to: Type, from: Type) -> Result<Op, PtxError> {
        let round = Round::of(&self.parts);
        match (to, from, round) {
            (Type::F32, Type::S32, Round::Nearest) => return self.map1(|a: i32| a as f32),
            (Type::F32, Type::U32, Round::Nearest) => return self.map1(|a: u32| a as f32),
            (Type::F32, Type::S64, Round::Nearest) => return self.map1(|a: i64| a as f32),
            (Type::F32, Type::U64, Round::Nearest) => return self.map1(|a: u64| a as f32),
            (Type::F64, _, Round::Nearest) => {}
            (_, Type::S64 | Type::U64, _) => return Err(self.unsupported("that rounding")),
            _ => {}
        }
        self.of_bits(move |bits| encode(extend(bits, from) as f64, to, round))
    }

    fn float_to_integer(&mut self, to: Type, from: Type) -> Result<Op, PtxError> {
        let mask = self.target_mask()?;
        let names = ["rni", "rmi", "rpi", "rzi"];
        let round = names
            .into_iter()
            .find(|name| self.has(name))
            .unwrap_or("rzi");
        self.of_bits(move |bits| {
            float_to_integer(decode(bits, from), from, to, round) as u64 & mask
        })
    }

    fn float_to_float(&mut self, to: Type, from: Type) -> Result<Op, PtxError> {
        let integral = ["rni", "rzi", "rmi", "rpi"]
            .iter()
            .any(|name| self.has(name));
        let (sat, ftz, round) = (self.has("sat"), self.has("ftz"), Round::of(&self.parts));
        if !integral && !sat && !ftz && round == Round::Nearest {
            match (to, from) {
                (Type::F32, Type::Bf16) => {
                    return self.map1(|a: u16| f32::from_bits(u32::from(a) << 16));
                }
                (Type::F32, Type::F16) => return self.map1(|a: f16| a.to_f32()),
                _ => {}
            }
        }
        let parts: Vec<&'static str> = MODIFIERS
            .into_iter()
            .filter(|part| self.has(part))
            .collect();
        self.of_bits(move |bits| {
            let mut value = decode(bits, from);
            if ftz && from == Type::F32 {
                value = f64::from(flush(value as f32));
            }
            value = to_integral(value, &parts);
            if sat {
                value = saturate(value);
            }
            let out = encode(value, to, round);
            if ftz && to == Type::F32 {
                return u64::from(flush(f32::from_bits(out as u32)).to_bits());
            }
            out
        })
    }

    fn convert_pair(&mut self, to: Type, from: Type) -> Result<Op, PtxError> {
        let (relu, round) = (self.has("relu"), Round::of(&self.parts));
        let relu = move |value: f32| {
            if relu && value <= 0.0 { 0.0 } else { value }
        };
        let format = |ty: Type| match ty {
            Type::E4m3x2 => Some(Fp8::E4m3),
            Type::E5m2x2 => Some(Fp8::E5m2),
            _ => None,
        };
        if self.has("sat") || self.has("ftz") || self.has("satfinite") != format(to).is_some() {
            return Err(self.unsupported("that modifier for these types"));
        }
        match (to, from) {
            (Type::F16x2 | Type::Bf16x2, Type::F32) => {
                let one = if to == Type::F16x2 {
                    Type::F16
                } else {
                    Type::Bf16
                };
                // The first operand is the upper half.
                self.map2(move |a: f32, b: f32| {
                    let half = |value: f32| encode(f64::from(relu(value)), one, round) as u32;
                    half(a) << 16 | half(b)
                })
            }
            (Type::F16x2, Type::E4m3x2 | Type::E5m2x2) => {
                let Some(format) = format(from) else {
                    return Err(self.unsupported("that type"));
                };
                self.map1(move |a: u16| {
                    let half = |byte: u8| {
                        let value = f64::from(relu(format.decode(byte)));
                        encode(value, Type::F16, Round::Nearest) as u32
                    };
                    half((a >> 8) as u8) << 16 | half(a as u8)
                })
            }
            (Type::E4m3x2 | Type::E5m2x2, Type::F32 | Type::F16x2) => {
                let Some(format) = format(to) else {
                    return Err(self.unsupported("that type"));
                };
                let pack = move |high: f32, low: f32| {
                    u16::from(format.encode(relu(high))) << 8 | u16::from(format.encode(relu(low)))
                };
                if from == Type::F32 {
                    return self.map2(pack);
                }
                self.map1(move |a: u32| {
                    let half = |bits: u32| f16::from_bits(bits as u16).to_f32();
                    pack(half(a >> 16), half(a))
                })
            }
            _ => Err(self.unsupported("that pair of types")),
        }
    }
}
