//! Rope parameters in `config.json`.

use super::rope::{longrope_mscale, yarn_mscale};
use super::{Fields, RopeConfig, RopeScaling};
use crate::LoadError;

/// What transformers assumes when a config names no base.
const DEFAULT_THETA: f64 = 10_000.0;

/// `part`: of a head's values are rotated, when the file says nothing.
pub(crate) fn read_rope(
    fields: &Fields<'_>,
    head_dim: usize,
    max_positions: usize,
    part: f64,
) -> Result<RopeConfig, LoadError> {
    let parameters = match fields.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_scaling")?,
    };
    let own_part = match &parameters {
        Some(parameters) => parameters.opt_number("partial_rotary_factor")?,
        None => None,
    };
    let part = own_part
        .or(fields.opt_number("partial_rotary_factor")?)
        .unwrap_or(part);
    if !(part > 0.0 && part <= 1.0) {
        return Err(fields.error(
            "partial_rotary_factor",
            format!("{part} is not a part of a head"),
        ));
    }
    let dim = (head_dim as f64 * part) as usize;
    read_scaled(parameters.as_ref(), fields, dim, max_positions)
}

/// The rotary embedding of one object of parameters; `root` has what it lacks.
pub(crate) fn read_scaled(
    parameters: Option<&Fields<'_>>,
    root: &Fields<'_>,
    dim: usize,
    max_positions: usize,
) -> Result<RopeConfig, LoadError> {
    let own_theta = match parameters {
        Some(parameters) => parameters.opt_number("rope_theta")?,
        None => None,
    };
    let theta = own_theta
        .or(root.opt_number("rope_theta")?)
        .unwrap_or(DEFAULT_THETA);
    let scaling = match parameters {
        Some(parameters) => read_scaling(parameters, root, max_positions)?,
        None => RopeScaling::None,
    };
    Ok(RopeConfig {
        theta,
        dim,
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
        // Its first name.
        "longrope" | "su" => read_longrope(parameters, original_positions, max_positions)?,
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
                     dynamic, yarn, longrope, llama3"
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

fn read_longrope(
    parameters: &Fields<'_>,
    original_positions: usize,
    max_positions: usize,
) -> Result<RopeScaling, LoadError> {
    let factor = match parameters.opt_number("factor")? {
        Some(factor) if original_positions == max_positions => factor,
        _ => max_positions as f64 / original_positions as f64,
    };
    let attention_factor = parameters.opt_number("attention_factor")?;
    for name in ["short_mscale", "long_mscale"] {
        if parameters.get(name).is_some() {
            return Err(parameters.error(name, "is not supported"));
        }
    }
    Ok(RopeScaling::LongRope {
        short: parameters.numbers("short_factor")?,
        long: parameters.numbers("long_factor")?,
        original_positions,
        attention_factor: attention_factor
            .unwrap_or_else(|| longrope_mscale(factor, original_positions)),
    })
}
