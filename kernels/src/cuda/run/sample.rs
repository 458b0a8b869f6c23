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
        let answers = self.note_samples(logits, n, rows, 0, rows.len());
        // Zeros, as after a failure, are no answer. Numbers are read as they are, whatever floats
        // their bits would be.
        let mut words = vec![0.0_f32; rows.len() * cuda::ANSWER_BYTES / 4];
        self.step().read(answers, &mut words);
        let words: Vec<u32> = words.iter().map(|word| word.to_bits()).collect();
        let each = words.chunks_exact(cuda::ANSWER_BYTES / 4).zip(rows);
        each.map(|(words, row)| cuda::unpack_answer(words, row.n_top.is_some()))
            .collect()
    }

    /// Notes draws whose answers are those from `first` on of `n_all`, and where these are.
    pub(crate) fn note_samples(
        &self,
        logits: DevicePtr,
        n: usize,
        rows: &[SampleRow<'_>],
        first: usize,
        n_all: usize,
    ) -> DevicePtr {
        let (bytes, n_changes) = cuda::pack_rows(rows);
        let mut step = self.step();
        let answers = step.scratch(Kind::Answers, n_all * cuda::ANSWER_BYTES);
        let saved = step.scratch(Kind::Saved, 4 * n_changes);
        // The last list of a step, so that its size moves no other and steps stay graphs.
        let at = step.put(&bytes);
        let own = answers.offset(first * cuda::ANSWER_BYTES);
        step.push(cuda::sample_rows(logits, n, rows.len(), at, saved, own));
        answers
    }

    /// Starts what was noted; its answers, which are there on the device, are read later.
    pub(crate) fn depart(&self, n_answers: usize) -> Result<(), String> {
        let n_bytes = n_answers * cuda::ANSWER_BYTES;
        let mut step = self.step();
        let answers = step.scratch(Kind::Answers, n_bytes);
        step.depart(answers, n_bytes)
    }

    /// Waits for the step that was started first. For each answer, `reports` says whether it has
    /// log-probabilities.
    pub(crate) fn arrive(&self, reports: &[bool]) -> Result<Vec<Option<SampledRow>>, String> {
        let words = self.step().arrive()?;
        let each = words.chunks_exact(cuda::ANSWER_BYTES / 4).zip(reports);
        Ok(each
            .map(|(words, reports)| cuda::unpack_answer(words, *reports))
            .collect())
    }
}
