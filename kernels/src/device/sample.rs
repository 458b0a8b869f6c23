//! Drawing tokens where the logits are.

use super::{Backend, Device, DeviceFailed, at};
use crate::sample::{Ask, SampleRow, SampledRow};
use crate::{Buffer, cuda};

/// What a device's sampling takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleLimits {
    /// Best tokens reported with log-probabilities.
    pub n_top: usize,
    pub top_k: u32,
}

impl Device {
    /// Calls `work(i)` for each `i` below `n`, on all threads that compute for this device: those
    /// of the CPU, or for a GPU this one alone.
    ///
    /// # Panics
    /// When `work` does.
    pub fn for_each_row(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        match &*self.backend {
            Backend::Cpu(cpu) => cpu.for_each(n, work),
            Backend::Cuda(_) => (0..n).for_each(work),
        }
    }

    /// What [`sample_rows`](Self::sample_rows) takes of rows of `n` logits; `None`: such rows are
    /// read and drawn from on the host.
    pub fn sample_limits(&self, n: usize) -> Option<SampleLimits> {
        let has_room = n <= cuda::MOST_LOGITS;
        self.as_cuda().filter(|_| has_room).map(|_| SampleLimits {
            n_top: cuda::MOST_TOP,
            top_k: cuda::MOST_TOP_K,
        })
    }

    /// Draws from rows of `n` logits. `None` where a row has to be done on the host: its logits are
    /// not numbers, nothing is left to draw, or more tokens have a chance than the device lists.
    /// Logits stay as they are.
    ///
    /// # Panics
    /// When the device has no [limits](Self::sample_limits), a row is beyond them, or names a token
    /// beyond `n`.
    pub fn sample_rows(
        &self,
        logits: &Buffer,
        n: usize,
        rows: &[SampleRow<'_>],
    ) -> Vec<Option<SampledRow>> {
        check(n, rows);
        match &*self.backend {
            Backend::Cpu(_) => panic!("sampling of a GPU on the CPU"),
            Backend::Cuda(gpu) => gpu.sample_rows(at(logits, rows.len() * n, "logits"), n, rows),
        }
    }

    /// As [`sample_rows`](Self::sample_rows), for a step that is not waited for
    /// ([`depart`](Self::depart)): these are the rows from `first` on of `n_all`.
    ///
    /// # Panics
    /// As there.
    pub fn note_samples(
        &self,
        logits: &Buffer,
        n: usize,
        rows: &[SampleRow<'_>],
        (first, n_all): (usize, usize),
    ) {
        check(n, rows);
        assert!(first + rows.len() <= n_all, "more rows than in all");
        match &*self.backend {
            Backend::Cpu(_) => panic!("sampling of a GPU on the CPU"),
            Backend::Cuda(gpu) => {
                let logits = at(logits, rows.len() * n, "logits");
                gpu.note_samples(logits, n, rows, first, n_all);
            }
        }
    }

    /// Starts the ops that were called, a step with `n_answers` rows of
    /// [`note_samples`](Self::note_samples), and goes on without waiting. At most two steps are on
    /// their way at a time. Ops of the next one come after all of this one's.
    ///
    /// # Errors
    /// The step could not be started, and is none.
    ///
    /// # Panics
    /// On a device that does not draw.
    pub fn depart(&self, n_answers: usize) -> Result<(), DeviceFailed> {
        match &*self.backend {
            Backend::Cpu(_) => panic!("sampling of a GPU on the CPU"),
            Backend::Cuda(gpu) => gpu.depart(n_answers).map_err(DeviceFailed),
        }
    }

    /// Waits for the first step on its way: what came of its rows. For each, `reports` says whether
    /// log-probabilities were asked for.
    ///
    /// # Errors
    /// It could not be done.
    ///
    /// # Panics
    /// On a device that does not draw.
    pub fn arrive(&self, reports: &[bool]) -> Result<Vec<Option<SampledRow>>, DeviceFailed> {
        match &*self.backend {
            Backend::Cpu(_) => panic!("sampling of a GPU on the CPU"),
            Backend::Cuda(gpu) => gpu.arrive(reports).map_err(DeviceFailed),
        }
    }
}

/// Rows ask for tokens that there are.
fn check(n: usize, rows: &[SampleRow<'_>]) {
    for row in rows {
        let changes = row.changes.iter().map(|change| change.token);
        let target = match row.ask {
            Ask::Score { token } => Some(token),
            Ask::Greedy | Ask::Draw(_) => None,
        };
        let is_known = |token: u32| (token as usize) < n;
        assert!(changes.chain(target).all(is_known), "no such token");
    }
}
