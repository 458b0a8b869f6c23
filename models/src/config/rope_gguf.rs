//! Rope parameters in GGUF metadata and tensors.

use kernels::{WeightType, dequantize};

use super::gguf::Keys;
use super::rope::{longrope_mscale, yarn_mscale};
use super::{RopeConfig, RopeScaling};
use crate::LoadError;
use crate::gguf::GgufValue;

pub(super) fn read_rope(keys: &Keys<'_>, head_dim: usize) -> Result<RopeConfig, LoadError> {
    let dim = keys.opt_size("rope.dimension_count")?.unwrap_or(head_dim);
    Ok(RopeConfig {
        theta: keys.opt_number("rope.freq_base")?.unwrap_or(10_000.0),
        dim,
        scaling: read_scaling(keys, dim)?,
    })
}

fn read_scaling(keys: &Keys<'_>, dim: usize) -> Result<RopeScaling, LoadError> {
    const KIND: &str = "rope.scaling.type";
    let divisors = read_divisors(keys, "rope_freqs.weight", dim)?;
    let long = read_divisors(keys, "rope_factors_long.weight", dim)?;
    let short = read_divisors(keys, "rope_factors_short.weight", dim)?;
    if let (Some(long), Some(short)) = (long, short) {
        return read_longrope(keys, short, long);
    }
    let kind = match keys.get(KIND) {
        Some(GgufValue::String(kind)) => kind.as_str(),
        Some(other) => return Err(keys.ill_typed(KIND, "a string", other)),
        // The oldest files have a factor only.
        None if keys.get("rope.scale_linear").is_some() => "linear",
        None => "none",
    };
    if let Some(divisors) = divisors {
        if kind != "none" {
            return Err(keys.error(
                KIND,
                format!("{kind:?} together with a tensor `rope_freqs.weight` is not supported"),
            ));
        }
        return Ok(RopeScaling::Divisors(divisors));
    }
    match kind {
        "none" => Ok(RopeScaling::None),
        "linear" => match keys.opt_number("rope.scaling.factor")? {
            Some(factor) => Ok(RopeScaling::Linear { factor }),
            None => Ok(RopeScaling::Linear {
                factor: keys.number("rope.scale_linear")?,
            }),
        },
        "yarn" => read_yarn(keys),
        other => Err(keys.error(
            KIND,
            format!("rope scaling {other:?} is not supported; supported: none, linear, yarn"),
        )),
    }
}

fn read_yarn(keys: &Keys<'_>) -> Result<RopeScaling, LoadError> {
    let number = |name: &str, default: f64| {
        keys.opt_number(&format!("rope.scaling.{name}"))
            .map(|x| x.unwrap_or(default))
    };
    let factor = keys.number("rope.scaling.factor")?;
    Ok(RopeScaling::Yarn {
        factor,
        original_positions: keys.size("rope.scaling.original_context_length")?,
        beta_fast: number("yarn_beta_fast", 32.0)?,
        beta_slow: number("yarn_beta_slow", 1.0)?,
        // The key's newer name first.
        attention_factor: number("yarn_attn_factor", number("attn_factor", 1.0)?)?
            * yarn_mscale(factor, 1.0),
        truncate: true,
    })
}

fn read_longrope(
    keys: &Keys<'_>,
    short: Vec<f32>,
    long: Vec<f32>,
) -> Result<RopeScaling, LoadError> {
    const ORIGINAL: &str = "rope.scaling.original_context_length";
    let max_positions = keys.size("context_length")?;
    let original_positions = keys.opt_size(ORIGINAL)?.unwrap_or(max_positions);
    let factor = max_positions as f64 / original_positions as f64;
    Ok(RopeScaling::LongRope {
        short,
        long,
        original_positions,
        attention_factor: keys
            .opt_number("rope.scaling.attn_factor")?
            .unwrap_or_else(|| longrope_mscale(factor, original_positions)),
    })
}

/// Some scalings come worked out, as a divisor for each frequency.
fn read_divisors(keys: &Keys<'_>, name: &str, dim: usize) -> Result<Option<Vec<f32>>, LoadError> {
    let Some(tensor) = keys.gguf.tensor(name) else {
        return Ok(None);
    };
    if tensor.ty != WeightType::F32 || tensor.shape != [dim / 2] {
        return Err(LoadError::new(
            tensor.file,
            format!(
                "tensor `{name}`: expected F32 of shape [{}], found {:?} of shape {:?}",
                dim / 2,
                tensor.ty,
                tensor.shape
            ),
        ));
    }
    let mut divisors = vec![0.0; dim / 2];
    dequantize(tensor.ty, tensor.bytes, &mut divisors);
    Ok(Some(divisors))
}
