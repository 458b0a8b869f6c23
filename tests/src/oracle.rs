//! What a request must give: served alone, by the plainest loop there is.
//!
//! The loop knows no scheduler. It builds its rows by hand, in a memory that is large enough and
//! that nobody else has ever used.

use scheduler::{
    BatchRow, BlockId, Executor, FinishReason, Pooling, PoolingSpec, PromptScoring, Request,
    SampleSpec, Sampled, SampledToken, SequenceId, TokenId, TokenLogprobs,
};

use crate::fake::{FakeConfig, FakeExecutor};
use crate::forcing::Forcing;
use crate::record::first_scored;

/// One choice of a request, from beginning to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub tokens: Vec<SampledToken>,
    pub reason: FinishReason,
    /// Scores of the prompt; empty unless they were asked for.
    pub scores: Vec<TokenLogprobs>,
    /// Vector of the prompt, if it was asked for.
    pub vector: Option<Vec<f64>>,
}

/// What an answer depends on beside its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub n_vocab: u32,
    pub max_model_len: usize,
    pub window: Option<usize>,
    pub forcing: Forcing,
}

/// Serves choice `index` of a request alone.
pub fn alone(request: &Request, index: u32, machine: Machine) -> Expected {
    let Machine {
        n_vocab,
        max_model_len,
        window,
        forcing,
    } = machine;
    let mut executor = FakeExecutor::new(FakeConfig {
        block_size: max_model_len,
        n_blocks: 1,
        n_vocab,
        window,
    });
    let mut tokens: Vec<TokenId> = request.prompt.to_vec();
    let mut drawn: Vec<SampledToken> = Vec::new();
    let mut scores = Vec::new();
    let mut vector = None;
    let mut n_computed = 0;
    let reason = 'answer: loop {
        let row = row(request, index, &tokens, n_computed);
        n_computed = tokens.len();
        let result = compute(&mut executor, row);
        scores.extend(result.scored);
        vector = vector.or(result.pooled);
        let Some(token) = result.token else {
            break FinishReason::Length;
        };
        let mut context = tokens.clone();
        context.push(token.token);
        let all_drawn = request.sampling.logprobs.is_some();
        let forced = if all_drawn || !request.is_steered {
            Vec::new()
        } else {
            forcing.after(&context)
        };
        let forced = forced.into_iter().map(|token| SampledToken {
            token,
            logprobs: None,
        });
        for (i, token) in std::iter::once(token).chain(forced).enumerate() {
            let stops = request.stop_tokens.contains(&token.token);
            if i > 0 && stops && drawn.len() < request.min_new_tokens as usize {
                break;
            }
            tokens.push(token.token);
            drawn.push(token);
            if stops {
                break 'answer FinishReason::Stop;
            }
            if drawn.len() == request.max_new_tokens as usize || tokens.len() == max_model_len {
                break 'answer FinishReason::Length;
            }
        }
    };
    Expected {
        tokens: drawn,
        reason,
        scores,
        vector,
    }
}

fn compute(executor: &mut FakeExecutor, row: BatchRow) -> Sampled {
    let batch = scheduler::Batch { rows: vec![row] };
    let mut sampled = executor.execute(&batch).expect("nobody told it to fail");
    sampled.pop().expect("one result a row")
}

/// The whole prompt, or what came last.
fn row(request: &Request, index: u32, tokens: &[TokenId], start: usize) -> BatchRow {
    let n_generated = tokens.len() - request.prompt.len();
    let bans = n_generated < request.min_new_tokens as usize;
    let history = if request.sampling.needs_history() {
        tokens.to_vec()
    } else {
        Vec::new()
    };
    let spec = SampleSpec {
        params: request.sampling.clone(),
        n_generated: n_generated as u32,
        history,
        n_prompt: request.prompt.len() as u32,
        banned: if bans {
            request.stop_tokens.clone()
        } else {
            [].into()
        },
        allowed: None,
        is_awaited: true,
    };
    let first_scored = first_scored(request);
    let scores = n_generated == 0 && request.prompt.len() > first_scored;
    let n_top = request.prompt_logprobs.filter(|_| scores);
    BatchRow {
        sequence: SequenceId {
            request: request.id,
            index,
        },
        tokens: tokens[start..].to_vec(),
        pending: None,
        start: start as u32,
        first_block: 0,
        blocks: vec![BlockId(0)],
        adapter: request.adapter,
        sample: (request.max_new_tokens > 0).then_some(spec),
        scoring: n_top.map(|n_top| PromptScoring {
            first: first_scored as u32 - 1,
            targets: request.prompt[first_scored..].to_vec(),
            n_top,
        }),
        pooling: request
            .pooling
            .filter(|_| n_generated == 0)
            .map(|pooling| pooling_spec(request, pooling)),
    }
}

fn pooling_spec(request: &Request, pooling: Pooling) -> PoolingSpec {
    let n_prompt = request.prompt.len() as u32;
    PoolingSpec {
        pooling,
        prompt: request.prompt.clone(),
        first: match pooling {
            Pooling::Mean => 0,
            Pooling::Last | Pooling::Encoded => n_prompt - 1,
        },
        sum: [].into(),
    }
}
