//! Branches, ends, barriers and fences.

use super::Decoder;
use crate::code::{Act, BarrierCall, Op, Reduction, ReductionKind};
use crate::fault::{FaultKind, PtxError};
use crate::registers::{Slot, Width};
use crate::run::Covers;
use crate::text::Operand;

impl Decoder<'_> {
    pub(super) fn control(&mut self) -> Result<Op, PtxError> {
        match self.parts[0] {
            "bra" => {
                self.only(&["uni"])?;
                let Operand::Name(label) = self.operand(0)? else {
                    return Err(self.error("a branch needs a label"));
                };
                Ok(Op::Branch(self.body.label(self.statement, label)?))
            }
            "brx" => {
                let index = self.source::<u32>(0)?;
                let Operand::Name(table) = self.operand(1)? else {
                    return Err(self.error("a jump needs a table"));
                };
                Ok(Op::Switch(index, self.body.table(self.statement, table)?))
            }
            // Calls are refused, so the kernel itself returns.
            "ret" | "exit" => Ok(Op::Exit),
            "bar" if self.has("warp") => self.warp_barrier(),
            "bar" | "barrier" => self.barrier(),
            "fence" if self.has("proxy") && self.has("async") || self.has("mbarrier_init") => {
                let covers = self.covers();
                let act: Act = Box::new(move |context, active| {
                    context.proxy_fence(active, covers);
                    Ok(())
                });
                Ok(Op::Act(act))
            }
            // Memory is sequentially consistent here, and no time passes.
            "membar" | "fence" | "nanosleep" | "griddepcontrol" | "setmaxnreg" | "pmevent" => {
                Ok(Op::Nothing)
            }
            _ => {
                let act: Act = Box::new(|_, _| Err(FaultKind::Trap.of_warp()));
                Ok(Op::Act(act))
            }
        }
    }

    /// What a fence of the async proxy makes known: without a space, all.
    fn covers(&self) -> Covers {
        let shared = Covers::SHARED.and(Covers::OBJECTS);
        match () {
            () if self.has("mbarrier_init") => Covers::OBJECTS,
            () if self.has("global") => Covers::GLOBAL,
            () if self.has("shared::cta") || self.has("shared::cluster") => shared,
            () => shared.and(Covers::GLOBAL),
        }
    }

    /// `bar.warp.sync`: the member mask must be the lanes that are here.
    fn warp_barrier(&mut self) -> Result<Op, PtxError> {
        let mask = self.source::<u32>(0)?;
        let act: Act = Box::new(move |context, active| {
            let masks = context.registers.words[mask.0 as usize];
            super::warp::check_members(&masks, active, context.alive)
        });
        Ok(Op::Act(act))
    }

    fn barrier(&mut self) -> Result<Op, PtxError> {
        self.only(&[
            "cta", "sync", "arrive", "red", "aligned", "popc", "and", "or",
        ])?;
        let barrier_at = usize::from(self.has("red"));
        let barrier = self.source::<u32>(barrier_at)?;
        let reduction = if self.has("red") {
            Some(self.reduction()?)
        } else {
            None
        };
        // `barrier.red d, a, {b,} p`
        let has_count = self.n_operands() > if reduction.is_some() { 3 } else { 1 };
        let n_threads: Option<Slot> = match has_count {
            true => Some(self.source::<u32>(barrier_at + 1)?),
            false => None,
        };
        let waits = !self.has("arrive");
        if !waits && n_threads.is_none() {
            return Err(self.error("an arrival needs the number of threads"));
        }
        Ok(Op::Barrier(BarrierCall {
            barrier,
            n_threads,
            waits,
            reduction,
        }))
    }

    fn reduction(&mut self) -> Result<Reduction, PtxError> {
        let (kind, width) = match () {
            () if self.has("popc") => (ReductionKind::Count, Width::Word),
            () if self.has("and") => (ReductionKind::And, Width::Pred),
            () => (ReductionKind::Or, Width::Pred),
        };
        let target = self.operand(0)?.clone();
        let output = self.write(&target, width)?;
        let input = self.predicate(self.n_operands() - 1)?;
        Ok(Reduction {
            kind,
            input,
            output,
        })
    }
}
