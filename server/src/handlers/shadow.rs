//! Copies of requests for the shadows of an alias. They run when nothing else would, belong to
//! no client, and leave nothing but figures.

use std::sync::Arc;

use futures::stream::{StreamExt, select_all};
use scheduler::{Priority, Request};
use sha2::{Digest, Sha256};

use super::flow::Job;
use crate::aliases::Meter;
use crate::generation::{Generation, TextRules};
use crate::grammar::Constraint;
use crate::openai::ApiError;
use crate::state::AppState;

/// What is copied of a job.
type Copied = (Request, Option<Constraint>, usize);

/// Sends copies of `jobs` to the shadows of the alias that the request called. Nobody waits for
/// them.
pub(super) fn start(state: &AppState, jobs: &[Job], rules: &TextRules) {
    let Some(arm) = &state.arm else {
        return;
    };
    for target in &arm.shadows {
        let copy = |job: &Job| (job.request.clone(), job.constraint.clone(), job.n_to_score);
        let jobs: Vec<Copied> = jobs.iter().map(copy).collect();
        let mut meter = Meter::begin(&state.metrics, &arm.alias, target, true);
        let (state, target, rules) = (state.clone(), target.clone(), rules.clone());
        tokio::spawn(async move {
            if let Err(error) = run(&state, &target, jobs, &rules, &mut meter).await {
                meter.fail();
                tracing::debug!(target, error = error.message, "a shadow was left out");
            }
        });
    }
}

async fn run(
    state: &AppState,
    target: &str,
    jobs: Vec<Copied>,
    rules: &TextRules,
    meter: &mut Meter,
) -> Result<(), ApiError> {
    let lease = state.adapters.lease(&state.choice_of(target)?).await?;
    let root = lease
        .as_ref()
        .map_or(state.model.kv_root, |lease| lease.kv_root());
    let engine = state.engine.for_shadow(state.request_timeout)?;
    let shapes: Vec<(u32, usize)> = jobs.iter().map(|job| (job.0.n, job.2)).collect();
    let requests = jobs.into_iter().map(|(request, constraint, _)| {
        let request = Request {
            id: engine.next_request_id(),
            adapter: lease.as_ref().map(|lease| lease.id()),
            kv_root: mixed(root, request.kv_root),
            priority: Priority::Batch,
            ..request
        };
        (request, constraint)
    });
    let streams = engine.submit_all(requests.collect(), lease.as_ref().map(Arc::clone))?;
    let updates = streams.into_iter().zip(shapes);
    let updates = updates.map(|(events, (n, n_to_score))| {
        let tokenizer = &state.model.tokenizer;
        Generation::new(events, n, n_to_score, tokenizer, rules).into_updates()
    });
    let mut updates = select_all(updates);
    while let Some(update) = updates.next().await {
        meter.note(Ok(&update?));
    }
    Ok(())
}

/// The root of a copy's KV keys: copies share blocks where their originals would, and with
/// nobody else.
fn mixed(root: u64, original: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(root.to_le_bytes());
    hash.update(original.to_le_bytes());
    let digest = hash.finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("SHA-256 has 32 bytes"))
}
