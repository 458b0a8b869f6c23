//! `mbarrier`: barriers in shared memory.

use super::Decoder;
use super::memory::Address;
use crate::code::{Act, Op, WaitCall};
use crate::fault::PtxError;
use crate::registers::{Lane, Slot, Width, lanes};
use crate::text::Operand;

const MODIFIERS: [&str; 13] = [
    "init",
    "inval",
    "arrive",
    "expect_tx",
    "complete_tx",
    "try_wait",
    "parity",
    "shared",
    "shared::cta",
    "release",
    "acquire",
    "cta",
    "relaxed",
];

impl Decoder<'_> {
    pub(super) fn mbarrier(&mut self) -> Result<Op, PtxError> {
        self.only(&MODIFIERS)?;
        if !self.has("shared") && !self.has("shared::cta") {
            return Err(self.unsupported("a generic address"));
        }
        let kind = self.parts.get(1).copied().unwrap_or_default();
        if self.has("relaxed") && !matches!(kind, "expect_tx" | "complete_tx") {
            return Err(self.unsupported("the relaxed form"));
        }
        match kind {
            "init" => self.mbarrier_init(),
            "inval" => {
                let address = self.address(0)?;
                let act: Act = Box::new(move |context, mask| {
                    let addresses = address.lanes(context.registers);
                    lanes(mask).try_for_each(|lane| {
                        let done = context.mbarrier_inval(addresses[lane]);
                        done.map_err(|kind| kind.at(lane))
                    })
                });
                Ok(Op::Act(act))
            }
            "arrive" => self.mbarrier_arrive(),
            "expect_tx" => {
                let (address, n_bytes) = (self.address(0)?, self.source::<u32>(1)?);
                Ok(arrive(address, None, None, Some(n_bytes)))
            }
            "complete_tx" => self.mbarrier_complete(),
            "try_wait" => self.mbarrier_wait(),
            _ => Err(self.unsupported("that operation")),
        }
    }

    fn mbarrier_init(&mut self) -> Result<Op, PtxError> {
        let (address, count) = (self.address(0)?, self.source::<u32>(1)?);
        let act: Act = Box::new(move |context, mask| {
            let addresses = address.lanes(context.registers);
            let counts = u32::read(context.registers, count);
            lanes(mask).try_for_each(|lane| {
                let done = context.mbarrier_init(lane, addresses[lane], counts[lane]);
                done.map_err(|kind| kind.at(lane))
            })
        });
        Ok(Op::Act(act))
    }

    /// `mbarrier.arrive{.expect_tx} state, [address] {, count or bytes};`
    fn mbarrier_arrive(&mut self) -> Result<Op, PtxError> {
        let address = self.address(1)?;
        let last = match self.n_operands() {
            2 => None,
            _ => Some(self.source::<u32>(2)?),
        };
        let state = match self.operand(0)?.clone() {
            Operand::Sink => None,
            operand => Some(self.write(&operand, Width::Long)?),
        };
        match (self.has("expect_tx"), last) {
            (true, None) => Err(self.error("no number of bytes")),
            (true, last) => {
                let one = self.layout.constant(Width::Word, 1);
                Ok(arrive(address, state, Some(one), last))
            }
            (false, None) => {
                let one = self.layout.constant(Width::Word, 1);
                Ok(arrive(address, state, Some(one), None))
            }
            (false, last) => Ok(arrive(address, state, last, None)),
        }
    }

    fn mbarrier_complete(&mut self) -> Result<Op, PtxError> {
        let (address, n_bytes) = (self.address(0)?, self.source::<u32>(1)?);
        let act: Act = Box::new(move |context, mask| {
            let addresses = address.lanes(context.registers);
            let n_bytes = u32::read(context.registers, n_bytes);
            lanes(mask).try_for_each(|lane| {
                let done = context.mbarrier_complete(addresses[lane], n_bytes[lane]);
                done.map_err(|kind| kind.at(lane))
            })
        });
        Ok(Op::Act(act))
    }

    /// `mbarrier.try_wait{.parity} done, [address], phase {, time};` waits as long as it takes.
    fn mbarrier_wait(&mut self) -> Result<Op, PtxError> {
        let done = self.target::<bool>(0)?;
        let address = self.address(1)?;
        let by_parity = self.has("parity");
        let phase = match by_parity {
            true => self.source::<u32>(2)?,
            false => self.source::<u64>(2)?,
        };
        Ok(Op::Wait(WaitCall {
            done,
            address,
            phase,
            by_parity,
        }))
    }
}

/// Announces bytes and arrives; none of a number is zero.
fn arrive(
    address: Address,
    state: Option<Slot>,
    n_arrivals: Option<Slot>,
    n_bytes: Option<Slot>,
) -> Op {
    let act: Act = Box::new(move |context, mask| {
        let addresses = address.lanes(context.registers);
        let read = |slot: Option<Slot>| slot.map_or([0; 32], |s| u32::read(context.registers, s));
        let (n_arrivals, n_bytes) = (read(n_arrivals), read(n_bytes));
        let mut states = [0; 32];
        for lane in lanes(mask) {
            let done = context.mbarrier_arrive(addresses[lane], n_arrivals[lane], n_bytes[lane]);
            states[lane] = done.map_err(|kind| kind.at(lane))?;
        }
        if let Some(state) = state {
            u64::write(context.registers, state, mask, &states);
        }
        Ok(())
    });
    Op::Act(act)
}
