//! f32 and f64 arithmetic and the special functions. Approximate functions are computed
//! exactly and rounded: the hardware's last bits differ.

use super::Decoder;
use crate::code::{Alu, Op};
use crate::fault::PtxError;
use crate::registers::Lane;
use crate::rounding::{Round, flush, saturate, to_f32, two_sum};
use crate::types::Type;
use crate::vector;

/// Minimum that prefers a number to NaN and -0 to +0.
fn minimum(a: f64, b: f64) -> f64 {
    if a == b && a == 0.0 {
        return if a.is_sign_negative() { a } else { b };
    }
    a.min(b)
}

/// Maximum that prefers a number to NaN and +0 to -0.
fn maximum(a: f64, b: f64) -> f64 {
    if a == b && a == 0.0 {
        return if a.is_sign_negative() { b } else { a };
    }
    a.max(b)
}

fn smaller(a: f32, b: f32) -> f32 {
    if a == b && a == 0.0 {
        return f32::from_bits(a.to_bits() | b.to_bits());
    }
    a.min(b)
}

fn larger(a: f32, b: f32) -> f32 {
    if a == b && a == 0.0 {
        return f32::from_bits(a.to_bits() & b.to_bits());
    }
    a.max(b)
}

impl Decoder<'_> {
    pub(super) fn float(&mut self) -> Result<Op, PtxError> {
        self.only(&[
            "rn", "rz", "rm", "rp", "ftz", "sat", "approx", "full", "NaN",
        ])?;
        if self.ty()? == Type::F64 {
            return self.double();
        }
        let plain = !self.has("ftz") && !self.has("sat");
        let nearest = Round::of(&self.parts) == Round::Nearest;
        let nan = self.has("NaN");
        match self.parts[0] {
            "add" if nearest && plain => self.map2(|a: f32, b: f32| a + b),
            "sub" if nearest && plain => self.map2(|a: f32, b: f32| a - b),
            "mul" if nearest && plain => self.map2(|a: f32, b: f32| a * b),
            "fma" | "mad" if nearest && plain => self.fused(),
            "div" if nearest && plain => self.map2(|a: f32, b: f32| a / b),
            "add" | "sub" | "mul" | "fma" | "mad" | "div" => self.rounded(),
            "min" | "max" => {
                let f = if self.parts[0] == "min" {
                    smaller
                } else {
                    larger
                };
                let ftz = self.has("ftz");
                self.map2(move |a: f32, b: f32| {
                    if nan && (a.is_nan() || b.is_nan()) {
                        return f32::NAN;
                    }
                    if ftz { f(flush(a), flush(b)) } else { f(a, b) }
                })
            }
            "abs" if plain => self.map1(f32::abs),
            "neg" if plain => self.map1(|a: f32| -a),
            "abs" => self.map1(|a: f32| flush(a.abs())),
            "neg" => self.map1(|a: f32| flush(-a)),
            _ => Err(self.unsupported("float type")),
        }
    }

    /// `fma.rn.f32`, the hottest instruction: with vector instructions where there are any.
    fn fused(&mut self) -> Result<Op, PtxError> {
        let (d, a) = (self.target::<f32>(0)?, self.source::<f32>(1)?);
        let (b, c) = (self.source::<f32>(2)?, self.source::<f32>(3)?);
        let alu: Alu = Box::new(move |registers, mask| {
            let (a, b) = (f32::read(registers, a), f32::read(registers, b));
            let mut c = f32::read(registers, c);
            vector::fma(&a, &b, &mut c);
            f32::write(registers, d, mask, &c);
        });
        Ok(Op::Alu(alu))
    }

    /// Arithmetic with flushed subnormals, saturation or a rounding direction.
    fn rounded(&mut self) -> Result<Op, PtxError> {
        let (ftz, sat) = (self.has("ftz"), self.has("sat"));
        let round = Round::of(&self.parts);
        let before = move |value: f32| f64::from(if ftz { flush(value) } else { value });
        let after = move |exact: (f64, f64)| {
            let value = to_f32(exact, round);
            let value = if ftz { flush(value) } else { value };
            if sat {
                saturate(f64::from(value)) as f32
            } else {
                value
            }
        };
        match self.parts[0] {
            "add" => self.map2(move |a: f32, b: f32| after(two_sum(before(a), before(b)))),
            "sub" => self.map2(move |a: f32, b: f32| after(two_sum(before(a), -before(b)))),
            "mul" => self.map2(move |a: f32, b: f32| after((before(a) * before(b), 0.0))),
            // A quotient of two f32 cannot come closer to a tie of f32 than f64 resolves.
            "div" => self.map2(move |a: f32, b: f32| {
                let (a, b) = (before(a), before(b));
                let quotient = a / b;
                let error = if quotient.is_finite() {
                    (-quotient).mul_add(b, a) / b
                } else {
                    0.0
                };
                after((quotient, error))
            }),
            _ => self.map3(move |a: f32, b: f32, c: f32| {
                after(two_sum(before(a) * before(b), before(c)))
            }),
        }
    }

    fn double(&mut self) -> Result<Op, PtxError> {
        if Round::of(&self.parts) != Round::Nearest {
            return Err(self.unsupported("directed rounding of f64"));
        }
        match self.parts[0] {
            "add" => self.map2(|a: f64, b: f64| a + b),
            "sub" => self.map2(|a: f64, b: f64| a - b),
            "mul" => self.map2(|a: f64, b: f64| a * b),
            "fma" | "mad" => self.map3(|a: f64, b: f64, c: f64| a.mul_add(b, c)),
            "div" => self.map2(|a: f64, b: f64| a / b),
            "min" => self.map2(minimum),
            "max" => self.map2(maximum),
            "abs" => self.map1(f64::abs),
            "neg" => self.map1(|a: f64| -a),
            _ => Err(self.unsupported("float type")),
        }
    }

    pub(super) fn special_function(&mut self) -> Result<Op, PtxError> {
        self.only(&[
            "rn",
            "approx",
            "ftz",
            "finite",
            "infinite",
            "number",
            "notanumber",
            "normal",
            "subnormal",
        ])?;
        let ftz = self.has("ftz");
        let name = self.parts[0];
        if name == "testp" {
            return self.test_property();
        }
        match (name, self.ty()?) {
            ("copysign", Type::F32) => self.map2(|a: f32, b: f32| b.copysign(a)),
            ("copysign", Type::F64) => self.map2(|a: f64, b: f64| b.copysign(a)),
            ("rcp", Type::F64) => self.map1(|a: f64| 1.0 / a),
            ("sqrt", Type::F64) => self.map1(f64::sqrt),
            ("rsqrt", Type::F64) => self.map1(|a: f64| 1.0 / a.sqrt()),
            (_, Type::F32) => {
                let f: fn(f32) -> f32 = match name {
                    "rcp" => |a| 1.0 / a,
                    "sqrt" => f32::sqrt,
                    "rsqrt" => |a| (1.0 / f64::from(a).sqrt()) as f32,
                    "sin" => |a| f64::from(a).sin() as f32,
                    "cos" => |a| f64::from(a).cos() as f32,
                    "ex2" => f32::exp2,
                    "lg2" => |a| f64::from(a).log2() as f32,
                    _ => |a| f64::from(a).tanh() as f32,
                };
                if ftz {
                    self.map1(move |a: f32| flush(f(flush(a))))
                } else {
                    self.map1(f)
                }
            }
            _ => self.half_function(),
        }
    }

    fn test_property(&mut self) -> Result<Op, PtxError> {
        if self.ty()? != Type::F32 {
            return Err(self.unsupported("that type"));
        }
        let f: fn(f32) -> bool = match self.parts[1] {
            "finite" => f32::is_finite,
            "infinite" => f32::is_infinite,
            "number" => |a| !a.is_nan(),
            "notanumber" => f32::is_nan,
            "normal" => f32::is_normal,
            _ => f32::is_subnormal,
        };
        self.map1(f)
    }
}
