//! Integer arithmetic.

use super::Decoder;
use crate::code::{Act, Op};
use crate::fault::{FaultKind, PtxError};
use crate::registers::{Lane, lanes};
use crate::types::Type;

/// Runs a body with `$T` as the Rust type of the instruction's type.
macro_rules! by_type {
    ($decoder:expr, $T:ident => $body:expr) => {
        match $decoder.ty()? {
            Type::U16 | Type::B16 => {
                type $T = u16;
                $body
            }
            Type::S16 => {
                type $T = i16;
                $body
            }
            Type::U32 | Type::B32 => {
                type $T = u32;
                $body
            }
            Type::S32 => {
                type $T = i32;
                $body
            }
            Type::U64 | Type::B64 => {
                type $T = u64;
                $body
            }
            Type::S64 => {
                type $T = i64;
                $body
            }
            _ => Err($decoder.unsupported("that type")),
        }
    };
}

impl Decoder<'_> {
    pub(super) fn integer(&mut self) -> Result<Op, PtxError> {
        self.only(&["lo", "hi", "wide", "sat"])?;
        if self.has("sat") {
            return match (self.parts[0], self.ty()?) {
                ("add", Type::S32) => self.map2(i32::saturating_add),
                ("sub", Type::S32) => self.map2(i32::saturating_sub),
                _ => Err(self.unsupported("saturation")),
            };
        }
        match self.parts[0] {
            "add" => by_type!(self, T => self.map2(T::wrapping_add)),
            "sub" => by_type!(self, T => self.map2(T::wrapping_sub)),
            "mul" if self.has("wide") => self.mul_wide(),
            "mul" if self.has("hi") => self.mul_hi(),
            "mul" => by_type!(self, T => self.map2(T::wrapping_mul)),
            "mad" if self.has("wide") => self.mad_wide(),
            "mad" if self.has("hi") => self.mad_hi(),
            "mad" => {
                by_type!(self, T => self.map3(|a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)))
            }
            "div" => by_type!(self, T => self.divide(T::wrapping_div)),
            "rem" => by_type!(self, T => self.divide(T::wrapping_rem)),
            "min" => by_type!(self, T => self.map2(|a: T, b: T| a.min(b))),
            "max" => by_type!(self, T => self.map2(|a: T, b: T| a.max(b))),
            "sad" => by_type!(self, T => self.map3(|a: T, b: T, c: T| {
                c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })
            })),
            "abs" => match self.ty()? {
                Type::S16 => self.map1(i16::wrapping_abs),
                Type::S32 => self.map1(i32::wrapping_abs),
                Type::S64 => self.map1(i64::wrapping_abs),
                _ => Err(self.unsupported("that type")),
            },
            "neg" => match self.ty()? {
                Type::S16 => self.map1(i16::wrapping_neg),
                Type::S32 => self.map1(i32::wrapping_neg),
                Type::S64 => self.map1(i64::wrapping_neg),
                _ => Err(self.unsupported("that type")),
            },
            _ => Err(self.unsupported("integer type")),
        }
    }

    fn mul_wide(&mut self) -> Result<Op, PtxError> {
        match self.ty()? {
            Type::U16 => self.map2(|a: u16, b: u16| u32::from(a) * u32::from(b)),
            Type::S16 => self.map2(|a: i16, b: i16| i32::from(a) * i32::from(b)),
            Type::U32 => self.map2(|a: u32, b: u32| u64::from(a) * u64::from(b)),
            Type::S32 => self.map2(|a: i32, b: i32| i64::from(a) * i64::from(b)),
            _ => Err(self.unsupported("that type")),
        }
    }

    fn mad_wide(&mut self) -> Result<Op, PtxError> {
        match self.ty()? {
            Type::U16 => {
                self.map3(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c))
            }
            Type::S16 => {
                self.map3(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c))
            }
            Type::U32 => {
                self.map3(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c))
            }
            Type::S32 => {
                self.map3(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c))
            }
            _ => Err(self.unsupported("that type")),
        }
    }

    fn mul_hi(&mut self) -> Result<Op, PtxError> {
        by_type!(self, T => self.map2(|a: T, b: T| {
            ((i128::from(a) * i128::from(b)) >> T::BITS) as T
        }))
    }

    fn mad_hi(&mut self) -> Result<Op, PtxError> {
        by_type!(self, T => self.map3(|a: T, b: T, c: T| {
            (((i128::from(a) * i128::from(b)) >> T::BITS) as T).wrapping_add(c)
        }))
    }

    /// Division and remainder; a zero divisor of an active lane is a fault.
    fn divide<T: Lane + PartialEq + From<bool>>(
        &mut self,
        f: impl Fn(T, T) -> T + Send + Sync + 'static,
    ) -> Result<Op, PtxError> {
        let (d, a, b) = (
            self.target::<T>(0)?,
            self.source::<T>(1)?,
            self.source::<T>(2)?,
        );
        let zero = T::default();
        let act: Act = Box::new(move |context, mask| {
            let (a, b) = (T::read(context.registers, a), T::read(context.registers, b));
            if let Some(lane) = lanes(mask).find(|lane| b[*lane] == zero) {
                return Err(FaultKind::DivisionByZero.at(lane));
            }
            let one = T::from(true);
            let out =
                std::array::from_fn(|lane| f(a[lane], if b[lane] == zero { one } else { b[lane] }));
            T::write(context.registers, d, mask, &out);
            Ok(())
        });
        Ok(Op::Act(act))
    }
}
