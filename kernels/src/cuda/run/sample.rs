//! Sampling on a GPU.

use super::gpu::Gpu;
use super::scratch::Kind;
use crate::cuda::{self, DevicePtr};
use crate::sample::{SampleRow, SampledRow};

impl Gpu {
    /// What came of each row; `None` where the host has to do it.
    pub(crate) fn sample_rows(
        &self,
        logits: DevicePtr,
        n: usize,
        rows: &[SampleRow<'_>],
    ) -> Vec<Option<SampledRow>> {
        let (bytes, n_changes) = cuda::pack_rows(rows);
        let mut step = self.step();
        let answers = step.scratch(Kind::Answers, rows.len() * cuda::ANSWER_BYTES);
        let saved = step.scratch(Kind::Saved, 4 * n_changes);
        // The last list of a step, so that its size moves no other and steps stay graphs.
        let at = step.put(&bytes);
        step.push(cuda::sample_rows(logits, n, rows.len(), at, saved, answers));
        // Zeros, as after a failure, are no answer. Numbers are read as they are, whatever floats
        // their bits would be.
        let mut words = vec![0.0_f32; rows.len() * cuda::ANSWER_BYTES / 4];
        step.read(answers, &mut words);
        let words: Vec<u32> = words.iter().map(|word| word.to_bits()).collect();
        let each = words.chunks_exact(cuda::ANSWER_BYTES / 4).zip(rows);
        each.map(|(words, row)| cuda::unpack_answer(words, row))
            .collect()
    }
}
