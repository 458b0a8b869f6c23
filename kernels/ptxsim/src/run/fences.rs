//! Fences between what threads do to memory and what bulk copies and products do to it
//! (`fence.proxy.async`): which threads fenced what, and when.

use super::clocks::Clocks;

/// What a fence makes known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Covers(u8);

impl Covers {
    pub(crate) const SHARED: Self = Self(1);
    pub(crate) const GLOBAL: Self = Self(2);
    /// Barriers that were initialised.
    pub(crate) const OBJECTS: Self = Self(4);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Fence {
    time: u32,
    lanes: u32,
    covers: Covers,
}

/// The fences of a block: of each warp by time, rising.
#[derive(Debug, Default)]
pub(super) struct Fences {
    by_warp: Vec<Vec<Fence>>,
}

impl Fences {
    pub(super) fn new(n_warps: usize) -> Self {
        let by_warp = vec![Vec::new(); n_warps];
        Self { by_warp }
    }

    pub(super) fn clear(&mut self) {
        self.by_warp.iter_mut().for_each(Vec::clear);
    }

    /// What these lanes of the warp did up to now is known behind the fence.
    pub(super) fn add(&mut self, clocks: &mut Clocks, warp: usize, lanes: u32, covers: Covers) {
        let time = clocks.now(warp);
        self.by_warp[warp].push(Fence {
            time,
            lanes,
            covers,
        });
        clocks.tick(warp);
    }

    /// Whether `warp` knows of a fence by the very thread that wrote at a time, after that.
    pub(super) fn holds(
        &self,
        clocks: &Clocks,
        warp: usize,
        (writer, time): (u32, u32),
        what: Covers,
    ) -> bool {
        let (by, lane) = (writer as usize / 32, writer % 32);
        let fences = &self.by_warp[by];
        let after = &fences[fences.partition_point(|fence| fence.time < time)..];
        let fits = |fence: &&Fence| fence.lanes >> lane & 1 == 1 && fence.covers.0 & what.0 != 0;
        let next = after.iter().find(fits);
        next.is_some_and(|fence| clocks.ordered(warp, by, fence.time))
    }
}
