//! The model: whether it can be read, and whether it fits.

use std::path::Path;

use models::Checkpoint;

use super::Finding;
use crate::plan::{FreeMemory, MemoryPlan, Needs, available_bytes, human_bytes, weight_file_bytes};
use crate::settings::Settings;
use crate::source;
use crate::text::{ChatTemplate, Tokenizer};

/// Looks at MODEL, the models beside it, and the encoder.
pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = model(settings, settings.model.as_deref());
    for other in &settings.fleet.models {
        findings.extend(model(settings, Some(&other.path)));
    }
    if let Some(encoder) = &settings.embedding_model
        && let Err(error) = source::resolve_local(Some(encoder))
    {
        findings.push(Finding::bad("encoder", error.to_string()));
    }
    findings
}

fn model(settings: &Settings, name: Option<&str>) -> Vec<Finding> {
    match source::resolve_local(name) {
        Err(error) => vec![Finding::bad("model", error.to_string())],
        Ok(None) => vec![Finding::good(
            "model",
            "is taken from the cache or downloaded at the start; `understudy fetch` does so before",
        )],
        Ok(Some(found)) if models::is_encoder(&found.path) => {
            vec![Finding::good("model", "an encoder")]
        }
        Ok(Some(found)) => decoder(settings, &found.path),
    }
}

fn decoder(settings: &Settings, path: &Path) -> Vec<Finding> {
    let checkpoint = match Checkpoint::open(path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return vec![Finding::bad("model", error.to_string())],
    };
    let config = checkpoint.config();
    let mut findings = vec![Finding::good(
        "model",
        format!("{} in {}", config.architecture, path.display()),
    )];
    if let Err(error) = Tokenizer::load(&checkpoint) {
        findings.push(Finding::bad("tokenizer", error.to_string()));
    }
    findings.push(match ChatTemplate::load(&checkpoint) {
        Ok(Some(_)) => Finding::good("template", "the model can chat"),
        Ok(None) => Finding::doubtful(
            "template",
            "none: /v1/chat/completions will be refused; put a chat_template.jinja beside the \
             weights",
        ),
        Err(error) => Finding::bad("template", error.to_string()),
    });
    findings.push(plan(settings, config, weight_file_bytes(path)));
    findings
}

fn plan(settings: &Settings, config: &models::ModelConfig, n_weights: u64) -> Finding {
    let free = available_bytes();
    let weights = human_bytes(n_weights);
    if n_weights > free {
        let text = format!(
            "the files of the weights are {weights}, but {} are free; use a quantized model or \
             --quantize",
            human_bytes(free)
        );
        return Finding::doubtful("plan", text);
    }
    let mut memory = FreeMemory::of(None);
    memory.n_bytes = free - n_weights;
    match MemoryPlan::new(&Needs::new(settings, config, memory)) {
        Ok(plan) => Finding::good(
            "plan",
            format!(
                "about {weights} of weights (as stored), {} of KV cache: {} blocks of {} tokens, \
                 up to {} tokens a sequence",
                human_bytes(plan.n_bytes()),
                plan.n_blocks,
                plan.block_size,
                plan.max_model_len
            ),
        ),
        Err(error) => Finding::bad("plan", error.to_string()),
    }
}
