//! A model that says what it is told to, and fails where it is told to.

use std::sync::{Arc, Condvar, Mutex};

use scheduler::{
    Batch, Executor, ExecutorError, Sampled, SampledToken, TokenLogprob, TokenLogprobs,
};
use tests::fake::{FakeConfig, FakeExecutor};

use crate::server::EOS;

/// Executes as strictly as the fake does, and then draws from a script.
pub(crate) struct ScriptedModel {
    fake: FakeExecutor,
    /// Tokens of every answer, in order; after the last, the last again. Without a script the
    /// fake's own draws stand.
    script: Option<Vec<u32>>,
    gate: Gate,
    fault: Option<Fault>,
}

/// What happens to a batch that computes a certain token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Panic(u32),
    Error(u32),
    /// Scores that nobody asked for, which the scheduler does not stand.
    Misscore(u32),
}

/// Holds every step back until opened.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    is_closed: Arc<(Mutex<bool>, Condvar)>,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.is_closed.0.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.is_closed.0.lock().unwrap() = false;
        self.is_closed.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.is_closed.0.lock().unwrap();
        drop(
            self.is_closed
                .1
                .wait_while(closed, |closed| *closed)
                .unwrap(),
        );
    }
}

impl ScriptedModel {
    pub(crate) fn new(
        config: FakeConfig,
        script: Option<Vec<u32>>,
        gate: Gate,
        fault: Option<Fault>,
    ) -> Self {
        Self {
            fake: FakeExecutor::new(config),
            script,
            gate,
            fault,
        }
    }
}

impl Executor for ScriptedModel {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        self.gate.pass();
        let computes = |token| batch.rows.iter().any(|row| row.tokens.contains(&token));
        match self.fault {
            Some(Fault::Panic(token)) if computes(token) => panic!("a planted panic"),
            Some(Fault::Error(token)) if computes(token) => {
                return Err(ExecutorError("a planted error".to_owned()));
            }
            _ => {}
        }
        let mut sampled = self.fake.execute(batch)?;
        if let Some(Fault::Misscore(token)) = self.fault
            && computes(token)
        {
            sampled[0].scored.extend(scripted(token, Some(0)).logprobs);
        }
        for (result, row) in sampled.iter_mut().zip(&batch.rows) {
            if let (Some(drawn), Some(spec)) = (&mut result.token, &row.sample) {
                if let Some(script) = &self.script {
                    let i = (spec.n_generated as usize).min(script.len() - 1);
                    *drawn = scripted(script[i], spec.params.logprobs);
                }
                if let Some(allowed) = &spec.allowed {
                    if allowed.iter().all(|word| *word == 0) {
                        result.token = None;
                        result.failed = Some("nothing is allowed".to_owned());
                        continue;
                    }
                    let token = obedient(drawn.token, allowed, spec.n_generated);
                    *drawn = scripted(token, spec.params.logprobs);
                }
            }
        }
        Ok(sampled)
    }
}

/// The wanted token if it is allowed, else the end if that is, else some token that is.
fn obedient(wanted: u32, allowed: &[u32], n_generated: u32) -> u32 {
    let is_allowed = |id: u32| allowed[(id / 32) as usize] >> (id % 32) & 1 == 1;
    if is_allowed(wanted) {
        return wanted;
    }
    if is_allowed(EOS) {
        return EOS;
    }
    let n_ids = u32::try_from(allowed.len()).unwrap() * 32;
    let start = n_generated.wrapping_mul(193) % n_ids;
    let mut ids = (start..n_ids).chain(0..start);
    ids.find(|id| is_allowed(*id))
        .expect("something is allowed")
}

/// The token with half of all probability; the others follow by id.
fn scripted(token: u32, n_top: Option<u8>) -> SampledToken {
    let entry = |token, rank: u8| TokenLogprob {
        token,
        logprob: -0.5 - f32::from(rank),
    };
    let logprobs = n_top.map(|n_top| TokenLogprobs {
        chosen: entry(token, 0),
        top: (0..n_top)
            .map(|rank| entry((token + u32::from(rank)) % 512, rank))
            .collect(),
    });
    SampledToken { token, logprobs }
}
