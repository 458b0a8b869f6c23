//! `cp.async`: copies that happen when they are waited for.

use super::Decoder;
use crate::code::{Act, Op};
use crate::fault::{FaultKind, LaneFault, PtxError, Space};
use crate::registers::{Lane, lanes};
use crate::run::{Context, CopyAsync, Shared, Write};

const HINTS: [&str; 12] = [
    "async",
    "ca",
    "cg",
    "shared",
    "shared::cta",
    "shared::cluster",
    "global",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2::cache_hint",
    "noinc",
];

impl Decoder<'_> {
    pub(super) fn copy(&mut self) -> Result<Op, PtxError> {
        match self.parts[1..] {
            ["async", "commit_group"] => {
                let act: Act = Box::new(|context, mask| {
                    lanes(mask).for_each(|lane| context.copies.commit(lane));
                    Ok(())
                });
                Ok(Op::Act(act))
            }
            ["async", "wait_group"] => {
                let n_left = self.integer_constant(0)? as u32;
                Ok(wait(Some(n_left)))
            }
            ["async", "wait_all"] => Ok(wait(None)),
            ["async", "bulk", "tensor", ..] | ["reduce", ..] => {
                Err(self.unsupported("copying by tensor maps, and reducing"))
            }
            ["async", "bulk", ..] => self.bulk(),
            ["async", "mbarrier", ..] => Err(self.unsupported("arrival of copies at an mbarrier")),
            _ => self.issue(),
        }
    }

    /// `cp.async.bulk.shared.global.mbarrier [shared], [global], size, [mbarrier];`
    fn bulk(&mut self) -> Result<Op, PtxError> {
        let counts = "mbarrier::complete_tx::bytes";
        self.only(&[
            "async",
            "bulk",
            "shared::cta",
            "shared::cluster",
            "global",
            counts,
        ])?;
        if self.parts.get(4) != Some(&"global") || !self.has(counts) {
            return Err(self.unsupported("that direction"));
        }
        let (to, from) = (self.address(0)?, self.address(1)?);
        let (len, barrier) = (self.source::<u32>(2)?, self.address(3)?);
        let act: Act = Box::new(move |context, mask| {
            let to = to.lanes(context.registers);
            let from = from.lanes(context.registers);
            let barrier = barrier.lanes(context.registers);
            let len = u32::read(context.registers, len);
            lanes(mask).try_for_each(|lane| {
                let ends = (to[lane], from[lane]);
                let begun = context.bulk_copy(lane, ends, len[lane] as usize, barrier[lane]);
                begun.map_err(|kind| kind.at(lane))
            })
        });
        Ok(Op::Act(act))
    }

    /// `cp.async [shared], [global], size {, bytes to read};`
    fn issue(&mut self) -> Result<Op, PtxError> {
        self.only(&HINTS)?;
        let (to, from) = (self.address(0)?, self.address(1)?);
        let len = self.integer_constant(2)? as usize;
        if !matches!(len, 4 | 8 | 16) || (self.has("cg") && len != 16) {
            return Err(self.error(format!("cp.async of {len} bytes")));
        }
        let hinted = usize::from(self.has("L2::cache_hint"));
        let from_len = match self.n_operands() - hinted {
            3 => None,
            _ => Some(self.source::<u32>(3)?),
        };
        let act: Act = Box::new(move |context, mask| {
            let to = to.lanes(context.registers);
            let from = from.lanes(context.registers);
            let from_len = from_len.map(|slot| u32::read(context.registers, slot));
            for lane in lanes(mask) {
                let n = from_len.map_or(len, |n| (n[lane] as usize).min(len));
                begin(context, lane, (to[lane], from[lane]), (len, n))?;
            }
            context.count_copy(mask, &from, &to, len);
            Ok(())
        });
        Ok(Op::Act(act))
    }
}

/// Checks both ends and marks the destination as in flight.
fn begin(
    context: &mut Context<'_>,
    lane: usize,
    ends: (u64, u64),
    lens: (usize, usize),
) -> Result<(), LaneFault> {
    let ((to, from), (len, from_len)) = (ends, lens);
    if from_len > 0 {
        let span = context.memory.span(from, from_len, len);
        span.map_err(|kind| kind.at(lane))?;
    }
    let actor = context.actor(lane);
    let bytes = context.shared.write(actor, to, len, len, Write::Begin);
    bytes.map_err(|kind| kind.at(lane))?.fill(0xFF);
    context.copies.issue(lane, ends, lens, context.line);
    Ok(())
}

fn wait(n_left: Option<u32>) -> Op {
    let act: Act = Box::new(move |context, mask| {
        for lane in lanes(mask) {
            while let Some(copy) = context.copies.due(lane, n_left) {
                complete(context, lane, copy)?;
            }
        }
        Ok(())
    });
    Op::Act(act)
}

fn complete(context: &mut Context<'_>, lane: usize, copy: CopyAsync) -> Result<(), LaneFault> {
    let mut bytes = [0u8; 16];
    let into = &mut bytes[..copy.from_len];
    if copy.from_len > 0 {
        let poisoned = context.memory.read(copy.from, into);
        if let Some(at) = poisoned.map_err(|kind| kind.at(lane))?
            && context.strict_global
        {
            return Err(FaultKind::Uninitialised {
                space: Space::Global,
                address: copy.from + at as u64,
                len: copy.from_len,
            }
            .at(lane));
        }
    }
    let mut actor = context.actor(lane);
    actor.line = copy.line;
    let shared: &mut Shared = context.shared;
    let place = shared.write(actor, copy.to, copy.len, copy.len, Write::Plain);
    place
        .map_err(|kind| kind.at(lane))?
        .copy_from_slice(&bytes[..copy.len]);
    Ok(())
}
