//! Lane-wise functions of one to four operands.

use super::Decoder;
use crate::code::{Alu, Op};
use crate::fault::PtxError;
use crate::registers::Lane;

impl Decoder<'_> {
    fn arity(&self, n: usize) -> Result<(), PtxError> {
        if self.n_operands() == n {
            return Ok(());
        }
        let (opcode, found) = (&self.statement.opcode, self.n_operands());
        Err(self.error(format!("`{opcode}`: {found} operands, {n} expected")))
    }

    /// `d = f(a)`
    pub(super) fn map1<A: Lane, R: Lane>(
        &mut self,
        f: impl Fn(A) -> R + Send + Sync + 'static,
    ) -> Result<Op, PtxError> {
        self.arity(2)?;
        let (d, a) = (self.target::<R>(0)?, self.source::<A>(1)?);
        let alu: Alu = Box::new(move |registers, mask| {
            let a = A::read(registers, a);
            let mut out = [R::default(); 32];
            for lane in 0..32 {
                out[lane] = f(a[lane]);
            }
            R::write(registers, d, mask, &out);
        });
        Ok(Op::Alu(alu))
    }

    /// `d = f(a, b)`
    pub(super) fn map2<A: Lane, B: Lane, R: Lane>(
        &mut self,
        f: impl Fn(A, B) -> R + Send + Sync + 'static,
    ) -> Result<Op, PtxError> {
        self.arity(3)?;
        let (d, a, b) = (
            self.target::<R>(0)?,
            self.source::<A>(1)?,
            self.source::<B>(2)?,
        );
        let alu: Alu = Box::new(move |registers, mask| {
            let (a, b) = (A::read(registers, a), B::read(registers, b));
            let mut out = [R::default(); 32];
            for lane in 0..32 {
                out[lane] = f(a[lane], b[lane]);
            }
            R::write(registers, d, mask, &out);
        });
        Ok(Op::Alu(alu))
    }

    /// `d = f(a, b, c)`
    pub(super) fn map3<A: Lane, B: Lane, C: Lane, R: Lane>(
        &mut self,
        f: impl Fn(A, B, C) -> R + Send + Sync + 'static,
    ) -> Result<Op, PtxError> {
        self.arity(4)?;
        let (d, a) = (self.target::<R>(0)?, self.source::<A>(1)?);
        let (b, c) = (self.source::<B>(2)?, self.source::<C>(3)?);
        let alu: Alu = Box::new(move |registers, mask| {
            let (a, b) = (A::read(registers, a), B::read(registers, b));
            let c = C::read(registers, c);
            let mut out = [R::default(); 32];
            for lane in 0..32 {
                out[lane] = f(a[lane], b[lane], c[lane]);
            }
            R::write(registers, d, mask, &out);
        });
        Ok(Op::Alu(alu))
    }

    /// `d = f(a, b, c, e)`
    pub(super) fn map4<A: Lane, B: Lane, C: Lane, E: Lane, R: Lane>(
        &mut self,
        f: impl Fn(A, B, C, E) -> R + Send + Sync + 'static,
    ) -> Result<Op, PtxError> {
        self.arity(5)?;
        let (d, a) = (self.target::<R>(0)?, self.source::<A>(1)?);
        let (b, c) = (self.source::<B>(2)?, self.source::<C>(3)?);
        let e = self.source::<E>(4)?;
        let alu: Alu = Box::new(move |registers, mask| {
            let (a, b) = (A::read(registers, a), B::read(registers, b));
            let (c, e) = (C::read(registers, c), E::read(registers, e));
            let mut out = [R::default(); 32];
            for lane in 0..32 {
                out[lane] = f(a[lane], b[lane], c[lane], e[lane]);
            }
            R::write(registers, d, mask, &out);
        });
        Ok(Op::Alu(alu))
    }
}
