//! Rope parameters in `config.json`.

use super::rope::yarn_mscale;
use super::{Fields, RopeConfig, RopeScaling};
use crate::LoadError;

/// What transformers assumes when a config names no base.
const DEFAULT_THETA: f64 = 10_000.0;

pub(super) fn read_rope(
    fields: &Fields<'_>,
    head_dim: usize,
    max_positions: usize,
) -> Result<RopeConfig, LoadError> {
    if let Some(part) = fields.opt_number("partial_rotary_factor")?
        && part != 1.0
    {
        return Err(fields.error("partial_rotary_factor", format!("{part} is not supported")));
    }
    let parameters = match fields.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_scaling")?,
    };
    let own_theta = match &parameters {
        Some(parameters) => parameters.opt_number("rope_theta")?,
        None => None,
    };
    let theta = own_theta
        .or(fields.opt_number("rope_theta")?)
        .unwrap_or(DEFAULT_THETA);
    let scaling = match &parameters {
        Some(parameters) => read_scaling(parameters, fields, max_positions)?,
        None => RopeScaling::None,
    };
    Ok(RopeConfig {
        theta,
        dim: head_dim,
        scaling,
    })
}

fn read_scaling(
    parameters: &Fields<'_>,
    root: &Fields<'_>,
    max_positions: usize,
) -> Result<RopeScaling, LoadError> {
    let kind = match parameters.opt_str("rope_type")? {
        Some(kind) => kind,
        // transformers 5 may write nothing but the base.
        None if parameters.get("type").is_none() && parameters.get("factor").is_none() => "default",
        None => parameters.str("type")?,
    };
    // Old configs have the length first trained on beside the scaling, or only the longest.
    let original_positions = match parameters.opt_size("original_max_position_embeddings")? {
        Some(n) => n,
        None => root
            .opt_size("original_max_position_embeddings")?
            .unwrap_or(max_positions),
    };
    Ok(match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: parameters.number("factor")?,
        },
        "dynamic" => RopeScaling::Dynamic {
            factor: parameters.number("factor")?,
            original_positions,
        },
        "yarn" => read_yarn(parameters, original_positions)?,
        "llama3" => RopeScaling::Llama3 {
            factor: parameters.number("factor")?,
            low_freq_factor: parameters.number("low_freq_factor")?,
            high_freq_factor: parameters.number("high_freq_factor")?,
            original_positions: parameters.size("original_max_position_embeddings")?,
        },
        other => {
            return Err(parameters.error(
                "rope_type",
                format!(
                    "rope scaling {other:?} is not supported; supported: default, linear, \
                     dynamic, yarn, llama3"
                ),
            ));
        }
    })
}

fn read_yarn(parameters: &Fields<'_>, original_positions: usize) -> Result<RopeScaling, LoadError> {
    let factor = parameters.number("factor")?;
    let mscale = parameters.opt_number("mscale")?.filter(|x| *x != 0.0);
    let mscale_all_dim = parameters
        .opt_number("mscale_all_dim")?
        .filter(|x| *x != 0.0);
    let given = parameters.opt_number("attention_factor")?;
    let attention_factor = match (given, mscale, mscale_all_dim) {
        (Some(given), _, _) => given,
        (None, Some(mscale), Some(all)) => yarn_mscale(factor, mscale) / yarn_mscale(factor, all),
        _ => yarn_mscale(factor, 1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_positions,
        beta_fast: parameters.opt_number("beta_fast")?.unwrap_or(32.0),
        beta_slow: parameters.opt_number("beta_slow")?.unwrap_or(1.0),
        attention_factor,
        truncate: parameters.opt_bool("truncate")?.unwrap_or(true),
    })
}
