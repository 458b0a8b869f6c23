//! `GET /admin/state`: what the server is doing, for whoever operates it.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::auth::{LimitKind, Moment};
use crate::engine::{RequestSnapshot, Snapshot};
use crate::openai::ApiError;
use crate::state::AppState;

/// A snapshot between two steps. With an engine busy at a long step it waits for the end of it.
pub(crate) async fn state(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    let engine = engine(&state.engine.snapshot().await?);
    let embedder = match &state.embedder {
        Some(embedder) => Some(embedder.engine.snapshot().await?),
        None => None,
    };
    let others = others(&state).await?;
    let adapters = state.adapters.list().into_iter().map(|adapter| {
        json!({
            "name": adapter.name,
            "state": adapter.state,
            "generation": adapter.generation,
            "error": adapter.failure,
        })
    });
    Ok(Json(json!({
        "object": "server.state",
        "version": env!("CARGO_PKG_VERSION"),
        "models": state.model.names,
        "system_fingerprint": state.model.fingerprint,
        "is_serving": state.engine.is_serving(),
        "engine": engine,
        "embedding_engine": embedder.as_ref().map(self::engine),
        "other_models": others,
        "adapters": adapters.collect::<Vec<Value>>(),
        "keys": keys(&state),
    })))
}

/// Models beside the first; those in memory with what their engines are doing.
async fn others(state: &AppState) -> Result<Option<Value>, ApiError> {
    let Some(fleet) = &state.fleet else {
        return Ok(None);
    };
    let mut told = Vec::new();
    for member in fleet.list() {
        let own = fleet.engines().find(|(name, _)| **name == member.name);
        // One that is just being unloaded does not answer any more.
        let snapshot = match own {
            Some((_, engine)) => engine.snapshot().await.ok(),
            None => None,
        };
        told.push(json!({
            "name": member.name,
            "state": member.state.word(),
            "bytes": member.n_bytes,
            "error": member.failure,
            "engine": snapshot.as_ref().map(engine),
        }));
    }
    let (in_memory, budget) = fleet.bytes();
    Ok(Some(
        json!({"bytes_in_memory": in_memory, "budget_bytes": budget, "models": told}),
    ))
}

fn engine(snapshot: &Snapshot) -> Value {
    let stats = &snapshot.stats;
    json!({
        "sequences": {"running": stats.n_running, "waiting": stats.n_waiting},
        "tokens": {"running": stats.n_tokens_running, "waiting": stats.n_tokens_waiting},
        "blocks": {
            "total": stats.n_blocks,
            "in_use": stats.n_blocks_in_use,
            "cached": stats.n_blocks_cached,
            "free": stats.n_blocks_free,
        },
        "totals": {
            "steps": stats.n_steps,
            "failed_steps": stats.n_failed_steps,
            "failed_rows": stats.n_failed_rows,
            "tokens_computed": stats.n_tokens_computed,
            "preemptions": stats.n_preemptions,
            "tokens_lost": stats.n_tokens_lost,
            "prefix_query_tokens": stats.n_prefix_query_tokens,
            "prefix_hit_tokens": stats.n_prefix_hit_tokens,
            "overdue_turns": stats.n_overdue,
        },
        "requests": snapshot.requests.iter().map(request).collect::<Vec<Value>>(),
    })
}

fn request(request: &RequestSnapshot) -> Value {
    json!({
        "id": request.id,
        "number": request.number,
        "tenant": request.tenant,
        "adapter": request.adapter,
        "age_ms": request.age_ms,
        "prompt_tokens": request.n_prompt,
        "generated_tokens": request.n_generated,
        "running": request.n_running,
        "waiting": request.n_waiting,
    })
}

/// Keys with limits, by name, and what they have left.
fn keys(state: &AppState) -> Vec<Value> {
    let now = Moment::now();
    let keys = state.keys.meters().into_iter().map(|(name, meter)| {
        let left = meter.remaining(now).into_iter().map(|(kind, left)| {
            let kind = match kind {
                LimitKind::Requests => "requests_per_minute",
                LimitKind::Tokens => "tokens_per_minute",
                LimitKind::Day => "tokens_per_day",
            };
            (
                kind.to_owned(),
                json!({"limit": left.limit, "remaining": left.remaining}),
            )
        });
        json!({"name": &*name, "limits": left.collect::<serde_json::Map<_, _>>()})
    });
    keys.collect()
}
