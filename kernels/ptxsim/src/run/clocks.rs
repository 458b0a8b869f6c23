//! What each warp knows of the others: vector clocks. An access of another warp that is not
//! known to lie in the past is concurrent, and a race if one of the two is a write. What writes
//! on its own, as bulk copies do, has a time as well: it is an agent, behind the warps.

/// Times of all warps and agents, as published at a point of synchronisation.
pub(super) type Moment = Vec<u32>;

#[derive(Debug, Default)]
pub(super) struct Clocks {
    n_warps: usize,
    /// Warps and agents.
    n_all: usize,
    /// The time at which each warp now acts; from 1.
    now: Vec<u32>,
    /// For each warp, the latest time of each other and of each agent that lies in its past.
    seen: Vec<u32>,
}

impl Clocks {
    pub(super) fn new(n_warps: usize) -> Self {
        Self {
            n_warps,
            n_all: n_warps,
            now: vec![1; n_warps],
            seen: vec![0; n_warps * n_warps],
        }
    }

    pub(super) fn reset(&mut self) {
        self.now.fill(1);
        self.n_all = self.n_warps;
        self.seen.clear();
        self.seen.resize(self.n_warps * self.n_warps, 0);
    }

    /// Adds an agent, of which nobody has seen anything: its index among all.
    pub(super) fn add_agent(&mut self) -> usize {
        let old = self.n_all;
        self.n_all += 1;
        let mut seen = vec![0; self.n_warps * self.n_all];
        for (to, from) in seen.chunks_mut(self.n_all).zip(self.seen.chunks(old)) {
            to[..old].copy_from_slice(from);
        }
        self.seen = seen;
        old
    }

    /// The index of the first agent.
    pub(super) fn n_warps(&self) -> usize {
        self.n_warps
    }

    pub(super) fn now(&self, warp: usize) -> u32 {
        self.now[warp]
    }

    /// Whether what `other`, a warp or an agent, did at `time` lies in the past of `warp`.
    #[inline]
    pub(super) fn ordered(&self, warp: usize, other: usize, time: u32) -> bool {
        other == warp || self.seen[warp * self.n_all + other] >= time
    }

    /// What `warp` does from here on is told from what it did.
    pub(super) fn tick(&mut self, warp: usize) {
        self.now[warp] += 1;
    }

    /// Publishes all that `warp` did and knows; what it does from here on is not included.
    pub(super) fn release(&mut self, warp: usize, into: &mut Moment) {
        into.resize(self.n_all, 0);
        let row = &mut self.seen[warp * self.n_all..][..self.n_all];
        row[warp] = self.now[warp];
        for (into, seen) in into.iter_mut().zip(row) {
            *into = (*into).max(*seen);
        }
        self.now[warp] += 1;
    }

    /// Takes what was published into the past of `warp`.
    pub(super) fn acquire(&mut self, warp: usize, from: &Moment) {
        let row = &mut self.seen[warp * self.n_all..][..self.n_all];
        let mut latest = self.now[warp];
        for (seen, from) in row.iter_mut().zip(from) {
            *seen = (*seen).max(*from);
            latest = latest.max(*from + 1);
        }
        self.now[warp] = latest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_published_is_past() {
        let mut clocks = Clocks::new(3);
        let first = clocks.now(0);
        let mut moment = Moment::new();
        clocks.release(0, &mut moment);
        let second = clocks.now(0);
        assert!(!clocks.ordered(1, 0, first));
        clocks.acquire(1, &moment);
        assert!(clocks.ordered(1, 0, first));
        assert!(!clocks.ordered(1, 0, second));
        assert!(!clocks.ordered(2, 0, first));
        // Knowledge is handed on.
        let mut moment = Moment::new();
        clocks.release(1, &mut moment);
        clocks.acquire(2, &moment);
        assert!(clocks.ordered(2, 0, first));
    }

    #[test]
    fn agents_are_seen_by_those_who_were_told() {
        let mut clocks = Clocks::new(2);
        let mut moment = Moment::new();
        clocks.release(1, &mut moment);
        clocks.acquire(0, &moment);
        let agent = clocks.add_agent();
        assert!(clocks.ordered(0, 1, 1));
        assert!(!clocks.ordered(0, agent, 1));
        let mut told = vec![0; agent];
        told.push(1);
        clocks.acquire(0, &told);
        assert!(clocks.ordered(0, agent, 1));
        assert!(!clocks.ordered(0, agent, 2));
        assert!(!clocks.ordered(1, agent, 1));
    }
}
