//! An encoder as an executor: its texts wait, are admitted and share the machine as all requests
//! do, and the texts of one step are encoded together.

use scheduler::{Batch, BatchRow, Executor, ExecutorError, Pooling, PoolingSpec, Sampled};

use super::Encoder;

/// Encodes the prompt of a row that is its last. Earlier chunks cost nothing: no position can be
/// computed before all are there. There is no KV memory.
#[derive(Debug)]
pub struct EncoderRunner {
    encoder: Encoder,
}

impl EncoderRunner {
    pub fn new(encoder: Encoder) -> Self {
        Self { encoder }
    }
}

impl Executor for EncoderRunner {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        let mut prompts = Vec::new();
        for row in &batch.rows {
            prompts.extend(prompt(row)?.map(|spec| &*spec.prompt));
        }
        let vectors = self.encoder.encode(&prompts);
        let mut vectors = vectors
            .map_err(|error| ExecutorError(error.to_string()))?
            .into_iter();
        let answer = |row: &BatchRow| {
            let vector = row.pooling.as_ref().and_then(|_| vectors.next());
            let is_sound = |vector: &Vec<f64>| vector.iter().all(|x| x.is_finite());
            let failed = vector.as_ref().is_some_and(|vector| !is_sound(vector));
            Sampled {
                sequence: row.sequence,
                token: None,
                scored: Vec::new(),
                pooled: vector.filter(is_sound),
                failed: failed.then(|| "the encoder's states are not numbers".to_owned()),
                postponed: false,
            }
        };
        Ok(batch.rows.iter().map(answer).collect())
    }
}

/// What a row asks for; an error if it is no encoder's work.
fn prompt(row: &BatchRow) -> Result<Option<&PoolingSpec>, ExecutorError> {
    let fail = |what: &str| Err(ExecutorError(format!("{}: {what}", row.sequence)));
    if row.sample.is_some() || row.scoring.is_some() {
        return fail("an encoder draws and scores no tokens");
    }
    if row.adapter.is_some() {
        return fail("an encoder has no adapters");
    }
    match &row.pooling {
        Some(spec) if spec.pooling != Pooling::Encoded => fail("an encoder pools as its files say"),
        spec => Ok(spec.as_ref()),
    }
}
