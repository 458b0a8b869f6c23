//! Asynchronous copies from global to shared memory. They happen as late as they may: when
//! their thread waits for them. Until then their destination must not be touched.

use std::collections::VecDeque;

/// One copy of one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyAsync {
    pub(crate) to: u64,
    pub(crate) from: u64,
    /// Bytes written.
    pub(crate) len: usize,
    /// Bytes read; the rest is zeros.
    pub(crate) from_len: usize,
    group: u32,
    /// Line of the instruction that issued it.
    pub(crate) line: u32,
}

/// The copies of a warp's threads that have not happened.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    lanes: [VecDeque<CopyAsync>; 32],
    /// The group that each lane's next copy joins.
    open: [u32; 32],
}

impl Copies {
    pub(super) fn reset(&mut self) {
        self.lanes.iter_mut().for_each(VecDeque::clear);
        self.open = [0; 32];
    }

    pub(crate) fn issue(&mut self, lane: usize, ends: (u64, u64), lens: (usize, usize), line: u32) {
        let group = self.open[lane];
        let ((to, from), (len, from_len)) = (ends, lens);
        self.lanes[lane].push_back(CopyAsync {
            to,
            from,
            len,
            from_len,
            group,
            line,
        });
    }

    pub(crate) fn commit(&mut self, lane: usize) {
        self.open[lane] += 1;
    }

    /// The next copy that must happen before a wait that leaves `n_left` groups; with none left
    /// out, copies in no group as well.
    pub(crate) fn due(&mut self, lane: usize, n_left: Option<u32>) -> Option<CopyAsync> {
        let due = match n_left {
            Some(n_left) => self.open[lane].saturating_sub(n_left),
            None => u32::MAX,
        };
        self.lanes[lane].pop_front_if(|copy| copy.group < due)
    }
}
