//! Mixtures of experts in GGUF metadata.

use kernels::{RouteGroups, RouteScore, Routing};

use super::gguf::Keys;
use super::{ExpertsConfig, ModelConfig, SharedExpert};
use crate::LoadError;

/// Reads what the file says of experts, if it has any; `renormalize` where it does not say.
pub(crate) fn read_gguf_experts(
    keys: &Keys<'_>,
    config: &mut ModelConfig,
    renormalize: bool,
) -> Result<(), LoadError> {
    let n_experts = keys.opt_size("expert_count")?.unwrap_or(0);
    if n_experts == 0 {
        return Ok(());
    }
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.experts = keys.has(&format!("blk.{i}.ffn_gate_inp.weight"));
    }
    let first = config.layers.iter().position(|layer| layer.experts);
    let has = |name: &str| first.is_some_and(|i| keys.has(&format!("blk.{i}.{name}")));
    let inner = keys
        .opt_size("expert_feed_forward_length")?
        .unwrap_or(config.intermediate_size);
    config.experts = Some(ExpertsConfig {
        intermediate_size: inner,
        routing: Routing {
            n_experts,
            n_used: keys.size("expert_used_count")?,
            score: read_score(keys)?,
            groups: read_groups(keys)?,
            renormalize: keys.opt_bool("expert_weights_norm")?.unwrap_or(renormalize),
            // Some writers put 0 where nothing is scaled.
            scale: keys
                .opt_f32("expert_weights_scale")?
                .filter(|x| *x != 0.0)
                .unwrap_or(1.0),
        },
        router_bias: has("ffn_gate_inp.bias"),
        correction_bias: has("exp_probs_b.bias"),
        bias: has("ffn_gate_exps.bias"),
        shared: read_shared(keys, inner, has("ffn_gate_inp_shexp.weight"))?,
    });
    Ok(())
}

fn read_score(keys: &Keys<'_>) -> Result<RouteScore, LoadError> {
    const KEY: &str = "expert_gating_func";
    Ok(match keys.opt_size(KEY)? {
        None | Some(0 | 1) => RouteScore::Softmax,
        Some(2) => RouteScore::Sigmoid,
        Some(3) => RouteScore::SoftmaxOfChosen,
        Some(other) => {
            let message = format!(
                "{other} is not supported; supported: 1 (softmax), 2 (sigmoid), 3 (softmax of \
                 the chosen)"
            );
            return Err(keys.error(KEY, message));
        }
    })
}

fn read_groups(keys: &Keys<'_>) -> Result<Option<RouteGroups>, LoadError> {
    let n_groups = keys.opt_size("expert_group_count")?.unwrap_or(0);
    if n_groups <= 1 {
        return Ok(None);
    }
    Ok(Some(RouteGroups {
        n_groups,
        n_used: keys.size("expert_group_used_count")?,
    }))
}

fn read_shared(
    keys: &Keys<'_>,
    inner: usize,
    gated: bool,
) -> Result<Option<SharedExpert>, LoadError> {
    let n_shared = keys.opt_size("expert_shared_count")?.unwrap_or(0);
    let width = match keys.opt_size("expert_shared_feed_forward_length")? {
        Some(width) => width,
        None => inner.saturating_mul(n_shared),
    };
    Ok((width > 0).then_some(SharedExpert {
        intermediate_size: width,
        gated,
    }))
}
