//! Memory that a thread keeps from step to step.

/// Floats that begin with a cache line, so that no vector lies across two. What is in them is
/// whatever was there.
#[derive(Debug, Default)]
pub(super) struct Room(Vec<f32>);

const LINE: usize = 64;

impl Room {
    /// Room for `len` values.
    #[inline(always)]
    pub(super) fn of(&mut self, len: usize) -> &mut [f32] {
        let n_more = LINE / size_of::<f32>() - 1;
        if self.0.len() < len + n_more {
            self.0.resize(len + n_more, 0.0);
        }
        let before = self.0.as_ptr().align_offset(LINE).min(n_more);
        &mut self.0[before..][..len]
    }
}
