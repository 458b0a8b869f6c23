//! What the four warps of a group must do alike (`.aligned` of `wgmma`): the same instructions in
//! the same order, with the same descriptors.

use std::collections::VecDeque;

use super::context::Context;
use crate::fault::FaultKind;

/// One instruction of a group, as one of its warps executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) line: u32,
    /// Of both operands; zero for one in registers and for what is no product.
    pub(crate) descriptors: [u64; 2],
    /// Whether a product adds to the sums that there are.
    pub(crate) adds: bool,
}

/// The steps that not all four warps have taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreement {
    steps: VecDeque<Step>,
    /// Steps that all have taken, and steps of each warp.
    n_common: usize,
    taken: [usize; 4],
}

impl Agreement {
    /// A warp takes its next step, which must be the one that others took.
    fn take(&mut self, warp: usize, step: Step) -> Result<(), FaultKind> {
        let at = self.taken[warp] - self.n_common;
        self.taken[warp] += 1;
        match self.steps.get(at) {
            None => self.steps.push_back(step),
            Some(first) if *first != step => return Err(differs(*first, step)),
            Some(_) => {}
        }
        if at == 0 && self.taken.iter().all(|taken| *taken > self.n_common) {
            self.steps.pop_front();
            self.n_common += 1;
        }
        Ok(())
    }

    /// The first warp that has not taken all steps of the others, and the line of its next.
    pub(super) fn missing(&self) -> Option<(usize, u32)> {
        let least = self.taken.iter().min().copied()?;
        let step = self.steps.get(least - self.n_common)?;
        let warp = self.taken.iter().position(|taken| *taken == least)?;
        Some((warp, step.line))
    }
}

#[cold]
fn differs(first: Step, step: Step) -> FaultKind {
    let (text, what) = if first.line != step.line {
        let (theirs, own) = (first.line, step.line);
        let what = format!("PTX line {own} where other warps are at line {theirs}");
        ("the instruction", what)
    } else if first.adds != step.adds {
        ("whether the sums are kept", "scale-d differs".to_owned())
    } else {
        let at = usize::from(first.descriptors[0] == step.descriptors[0]);
        let (theirs, own) = (first.descriptors[at], step.descriptors[at]);
        let what = format!("{own:#018x} where other warps have {theirs:#018x}");
        ("the matrix descriptors", what)
    };
    FaultKind::GroupDiffers { text, what }
}

impl Context<'_> {
    /// The warp executes an instruction of its group.
    pub(crate) fn step(&mut self, descriptors: [u64; 2], adds: bool) -> Result<(), FaultKind> {
        let line = self.line;
        let step = Step {
            line,
            descriptors,
            adds,
        };
        self.group.take(self.warp % 4, step)
    }
}
