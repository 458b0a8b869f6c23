//! `wgmma`: products of four warps, computed while their threads go on.

use std::sync::Arc;

use half::f16;

use super::Decoder;
use super::matrix::all_lanes;
use crate::code::{Act, Op};
use crate::fault::PtxError;
use crate::registers::{Lane, Slot, Width};
use crate::run::{First, Form, Product, Rows};
use crate::text::Operand;
use crate::types::Type;

impl Decoder<'_> {
    pub(super) fn wgmma(&mut self) -> Result<Op, PtxError> {
        match self.parts[1..] {
            ["fence", "sync", "aligned"] => {
                let act: Act = Box::new(|context, active| {
                    all_lanes("wgmma.fence", active)?;
                    context.products.fence();
                    Ok(())
                });
                Ok(Op::Act(act))
            }
            ["commit_group", "sync", "aligned"] => {
                let act: Act = Box::new(|context, active| {
                    all_lanes("wgmma.commit_group", active)?;
                    context.products.commit();
                    Ok(())
                });
                Ok(Op::Act(act))
            }
            ["wait_group", "sync", "aligned"] => {
                let n_left = self.integer_constant(0)? as usize;
                let act: Act = Box::new(move |context, active| {
                    all_lanes("wgmma.wait_group", active)?;
                    context.finish(n_left).map_err(|kind| kind.at(0))
                });
                Ok(Op::Act(act))
            }
            ["mma_async", "sync", "aligned", ..] => self.product(),
            _ => Err(self.unsupported("that operation")),
        }
    }

    /// Columns of the shape `m64nNk16`.
    fn columns(&self) -> Option<usize> {
        let shape = self.parts.get(4)?.strip_prefix("m64n")?;
        let n: usize = shape.strip_suffix("k16")?.parse().ok()?;
        ((8..=256).contains(&n) && n.is_multiple_of(8)).then_some(n)
    }

    /// `wgmma.mma_async.sync.aligned.shape.f32.type.type d, a, b, scale-d, 1, 1 {, 0} {, 0};`
    fn product(&mut self) -> Result<Op, PtxError> {
        let n = self.columns();
        let n = n.ok_or_else(|| self.unsupported("that shape"))?;
        let shape = self.parts[4];
        self.only(&["mma_async", "sync", "aligned", shape])?;
        let value: fn(u16) -> f64 = match self.types()[..] {
            [Type::F32, Type::Bf16, Type::Bf16] => {
                |bits| f64::from(f32::from_bits(u32::from(bits) << 16))
            }
            [Type::F32, Type::F16, Type::F16] => |bits| f16::from_bits(bits).to_f64(),
            _ => return Err(self.unsupported("that combination of types")),
        };
        for idx in 4..self.n_operands() {
            let plain = if idx < 6 { 1 } else { 0 };
            if self.integer_constant(idx)? != plain {
                return Err(self.unsupported("a negated or transposed operand"));
            }
        }
        let sums = self.target_words(0)?;
        if sums.len() != n / 2 {
            return Err(self.error("registers do not fit the number of columns"));
        }
        let registers = match self.operand(1)? {
            Operand::Vector(_) => Some(self.source_words(1)?),
            _ => None,
        };
        let registers: Option<[Slot; 4]> = match registers {
            Some(slots) => {
                let four = <[Slot; 4]>::try_from(slots);
                Some(four.map_err(|_| self.error("the first operand is four registers"))?)
            }
            None => None,
        };
        let a = match registers {
            Some(_) => self.layout.sink(Width::Long),
            None => self.source::<u64>(1)?,
        };
        let b = self.source::<u64>(2)?;
        let (adds, flip) = self.predicate(3)?;
        self.tensor
            .extend(sums.iter().chain(registers.iter().flatten()));
        let form = Arc::new(Form { n, value, sums });
        let act: Act = Box::new(move |context, active| {
            all_lanes("wgmma", active)?;
            let adds = (context.registers.preds[adds.0 as usize] ^ flip) & 1 == 1;
            let rows = |descriptor: Slot| {
                Rows::of(u64::read(context.registers, descriptor)[0]).map_err(|kind| kind.at(0))
            };
            let a = match registers {
                Some(slots) => First::Registers(slots),
                None => First::Shared(rows(a)?),
            };
            let (b, form) = (rows(b)?, Arc::clone(&form));
            let product = Product { form, a, b, adds };
            context.issue(product).map_err(|kind| kind.at(0))
        });
        Ok(Op::Act(act))
    }
}
