//! f16 and bf16 arithmetic, single and packed in pairs. Computed in f64 and rounded once.

use half::{bf16, f16};

use super::Decoder;
use crate::code::Op;
use crate::fault::PtxError;
use crate::rounding::{saturate, sticky};
use crate::types::Type;

/// A 16-bit float format.
pub(super) trait Half: Copy + Send + Sync + 'static {
    fn of(bits: u16) -> Self;
    fn bits(self) -> u16;
    fn wide(self) -> f64;
    fn round(value: f64) -> Self;
}

macro_rules! half_type {
    ($ty:ty) => {
        impl Half for $ty {
            fn of(bits: u16) -> Self {
                Self::from_bits(bits)
            }
            fn bits(self) -> u16 {
                self.to_bits()
            }
            fn wide(self) -> f64 {
                self.to_f64()
            }
            fn round(value: f64) -> Self {
                // NaN is canonical on the device.
                if value.is_nan() {
                    return Self::from_bits(0x7FFF);
                }
                Self::from_f32(sticky(value))
            }
        }
    };
}
half_type!(f16);
half_type!(bf16);

type Function = fn([f64; 3]) -> f64;

fn function(name: &str) -> Option<(usize, Function)> {
    Some(match name {
        "add" => (2, |[a, b, _]| a + b),
        "sub" => (2, |[a, b, _]| a - b),
        "mul" => (2, |[a, b, _]| a * b),
        "fma" => (3, |[a, b, c]| a.mul_add(b, c)),
        "min" => (2, |[a, b, _]| a.min(b)),
        "max" => (2, |[a, b, _]| a.max(b)),
        "ex2" => (1, |[a, _, _]| a.exp2()),
        "tanh" => (1, |[a, _, _]| a.tanh()),
        _ => return None,
    })
}

/// What is done to the result.
#[derive(Clone, Copy)]
struct After {
    sat: bool,
    relu: bool,
    nan: bool,
}

fn apply<H: Half>(f: Function, after: After, n: usize, operands: [u16; 3]) -> u16 {
    let wide = operands.map(|bits| H::of(bits).wide());
    if after.nan && wide[..n].iter().any(|value| value.is_nan()) {
        return 0x7FFF;
    }
    let mut value = f(wide);
    if after.sat {
        value = saturate(value);
    }
    if after.relu && value < 0.0 {
        value = 0.0;
    }
    H::round(value).bits()
}

fn apply2<H: Half>(f: Function, after: After, n: usize, operands: [u32; 3]) -> u32 {
    let low = apply::<H>(f, after, n, operands.map(|bits| bits as u16));
    let high = apply::<H>(f, after, n, operands.map(|bits| (bits >> 16) as u16));
    u32::from(high) << 16 | u32::from(low)
}

impl Decoder<'_> {
    pub(super) fn half_float(&mut self) -> Result<Op, PtxError> {
        self.only(&["rn", "ftz", "sat", "relu", "NaN", "approx"])?;
        if self.has("ftz") {
            return Err(self.unsupported("flushing of 16-bit subnormals"));
        }
        match (self.parts[0], self.ty()?) {
            ("neg", Type::F16 | Type::Bf16) => self.map1(|a: u16| a ^ 0x8000),
            ("neg", _) => self.map1(|a: u32| a ^ 0x8000_8000),
            ("abs", Type::F16 | Type::Bf16) => self.map1(|a: u16| a & 0x7FFF),
            ("abs", _) => self.map1(|a: u32| a & 0x7FFF_7FFF),
            _ => self.half_function(),
        }
    }

    /// A function of one to three operands.
    pub(super) fn half_function(&mut self) -> Result<Op, PtxError> {
        let Some((n, f)) = function(self.parts[0]) else {
            return Err(self.unsupported("16-bit float form"));
        };
        let after = After {
            sat: self.has("sat"),
            relu: self.has("relu"),
            nan: self.has("NaN") || !matches!(self.parts[0], "min" | "max"),
        };
        match self.ty()? {
            Type::F16 => self.singles::<f16>(n, f, after),
            Type::Bf16 => self.singles::<bf16>(n, f, after),
            Type::F16x2 => self.pairs::<f16>(n, f, after),
            Type::Bf16x2 => self.pairs::<bf16>(n, f, after),
            _ => Err(self.unsupported("that type")),
        }
    }

    fn singles<H: Half>(&mut self, n: usize, f: Function, after: After) -> Result<Op, PtxError> {
        match n {
            1 => self.map1(move |a: u16| apply::<H>(f, after, n, [a, 0, 0])),
            2 => self.map2(move |a: u16, b: u16| apply::<H>(f, after, n, [a, b, 0])),
            _ => self.map3(move |a: u16, b: u16, c: u16| apply::<H>(f, after, n, [a, b, c])),
        }
    }

    fn pairs<H: Half>(&mut self, n: usize, f: Function, after: After) -> Result<Op, PtxError> {
        match n {
            1 => self.map1(move |a: u32| apply2::<H>(f, after, n, [a, 0, 0])),
            2 => self.map2(move |a: u32, b: u32| apply2::<H>(f, after, n, [a, b, 0])),
            _ => self.map3(move |a: u32, b: u32, c: u32| apply2::<H>(f, after, n, [a, b, c])),
        }
    }
}
