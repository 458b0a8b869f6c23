//! `wgmma`: products of four warps, computed while their threads go on.

use std::sync::Arc;

use half::f16;

use super::Decoder;
use super::matrix::all_lanes;
use crate::code::{Act, Op};
use crate::fault::{FaultKind, LaneFault, PtxError};
use crate::registers::{Lane, Registers, Slot, Width, lanes};
use crate::run::{Context, First, Form, Product, Rows};
use crate::text::Operand;
use crate::types::Type;

impl Decoder<'_> {
    pub(super) fn wgmma(&mut self) -> Result<Op, PtxError> {
        match self.parts[1..] {
            ["fence", "sync", "aligned"] => {
                let act: Act = Box::new(|context, active| {
                    all_lanes("wgmma.fence", active)?;
                    aligned(context)?;
                    context.products.fence();
                    Ok(())
                });
                Ok(Op::Act(act))
            }
            ["commit_group", "sync", "aligned"] => {
                let act: Act = Box::new(|context, active| {
                    all_lanes("wgmma.commit_group", active)?;
                    aligned(context)?;
                    context.products.commit();
                    Ok(())
                });
                Ok(Op::Act(act))
            }
            ["wait_group", "sync", "aligned"] => {
                let n_left = self.integer_constant(0)? as usize;
                let act: Act = Box::new(move |context, active| {
                    all_lanes("wgmma.wait_group", active)?;
                    aligned(context)?;
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
            let adds = context.registers.preds[adds.0 as usize] ^ flip;
            if let Some(lane) = lanes(u32::MAX).find(|lane| (adds >> lane ^ adds) & 1 == 1) {
                return Err(differs("whether the sums are kept", "scale-d").at(lane));
            }
            let adds = adds & 1 == 1;
            let second = descriptor(context.registers, b)?;
            let (first, a) = match registers {
                Some(slots) => (0, First::Registers(slots)),
                None => {
                    let first = descriptor(context.registers, a)?;
                    (first, First::Shared(rows(first)?))
                }
            };
            let (b, form) = (rows(second)?, Arc::clone(&form));
            let step = context.step([first, second], adds);
            step.map_err(|kind| kind.at(0))?;
            let line = context.line;
            let product = Product {
                form,
                a,
                b,
                adds,
                line,
            };
            context.issue(product).map_err(|kind| kind.at(0))
        });
        Ok(Op::Act(act))
    }
}

/// An instruction that all warps of the group execute, and that has no operands to differ in.
fn aligned(context: &mut Context<'_>) -> Result<(), LaneFault> {
    context.step([0; 2], false).map_err(|kind| kind.at(0))
}

fn differs(text: &'static str, operand: &str) -> FaultKind {
    let what = format!("{operand} differs between lanes of a warp");
    FaultKind::GroupDiffers { text, what }
}

/// A matrix descriptor, which all lanes must give alike.
fn descriptor(registers: &Registers, slot: Slot) -> Result<u64, LaneFault> {
    let all = u64::read(registers, slot);
    match all.iter().position(|value| *value != all[0]) {
        None => Ok(all[0]),
        Some(lane) => Err(differs("the matrix descriptors", "a descriptor").at(lane)),
    }
}

fn rows(descriptor: u64) -> Result<Rows, LaneFault> {
    Rows::of(descriptor).map_err(|kind| kind.at(0))
}
