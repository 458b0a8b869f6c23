//! The sixteen barriers of a block.

use super::clocks::{Clocks, Moment};
use crate::code::{Reduction, ReductionKind};
use crate::fault::FaultKind;
use crate::registers::lanes;

pub(super) const N_BARRIERS: usize = 16;

/// A warp's arrival.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) warp: usize,
    /// Threads that the barrier is for.
    pub(super) expected: u32,
    pub(super) waits: bool,
    /// The reduction, and for which lanes its predicate holds.
    pub(super) reduction: Option<(Reduction, u32)>,
    pub(super) alive: u32,
}

/// One barrier: who has arrived since it last opened.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    arrived: u32,
    expected: u32,
    waiting: u32,
    moment: Moment,
    n_true: u32,
    n_voted: u32,
    reductions: [Option<Reduction>; 32],
}

/// Warps that may go on, and what a reduction gave them.
pub(super) struct Opened {
    pub(super) warps: u32,
    pub(super) results: Vec<(usize, Reduction, u32)>,
}

impl Barrier {
    /// Notes an arrival; opens when it was the last.
    pub(super) fn arrive(
        &mut self,
        arrival: Arrival,
        clocks: &mut Clocks,
    ) -> Result<Option<Opened>, String> {
        if self.arrived > 0 && self.expected != arrival.expected {
            let (first, now) = (self.expected, arrival.expected);
            return Err(format!("for {now} threads, but others arrived for {first}"));
        }
        if arrival.expected == 0 || !arrival.expected.is_multiple_of(32) {
            let n = arrival.expected;
            return Err(format!("for {n} threads, which are not whole warps"));
        }
        self.expected = arrival.expected;
        self.arrived += 32;
        if arrival.waits {
            self.waiting |= 1 << arrival.warp;
        }
        if let Some((reduction, held)) = arrival.reduction {
            self.n_true += (held & arrival.alive).count_ones();
            self.n_voted += arrival.alive.count_ones();
            self.reductions[arrival.warp] = Some(reduction);
        }
        clocks.release(arrival.warp, &mut self.moment);
        if self.arrived > self.expected {
            return Err(format!(
                "{} threads arrived of {}",
                self.arrived, self.expected
            ));
        }
        Ok((self.arrived == self.expected).then(|| self.open(clocks)))
    }

    fn open(&mut self, clocks: &mut Clocks) -> Opened {
        let mut results = Vec::new();
        for warp in lanes(self.waiting) {
            clocks.acquire(warp, &self.moment);
            if let Some(reduction) = self.reductions[warp] {
                let value = match reduction.kind {
                    ReductionKind::And => u32::from(self.n_true == self.n_voted),
                    ReductionKind::Or => u32::from(self.n_true > 0),
                    ReductionKind::Count => self.n_true,
                };
                results.push((warp, reduction, value));
            }
        }
        let warps = self.waiting;
        *self = Self::default();
        Opened { warps, results }
    }

    /// What the barrier waits for, if somebody does.
    pub(super) fn state(&self) -> Option<String> {
        let warps: Vec<usize> = lanes(self.waiting).collect();
        (self.arrived > 0).then(|| {
            let (arrived, expected) = (self.arrived, self.expected);
            format!("{arrived} of {expected} threads arrived, warps {warps:?} wait")
        })
    }
}

/// The index of a barrier, if there is one.
pub(super) fn index(barrier: u32) -> Result<usize, FaultKind> {
    let idx = barrier as usize;
    if idx < N_BARRIERS {
        return Ok(idx);
    }
    let what = "there are 16".to_owned();
    Err(FaultKind::Barrier { barrier, what })
}
