//! What `config.json` declares about quantized weights.

use std::path::Path;

use serde_json::Value;

use super::awq::Awq;
use super::compressed::{Compressed, Format};
use super::gptq::Gptq;
use crate::LoadError;
use crate::config::Fields;

/// How linear layers are stored. A layer without the tensors of the method is stored plainly.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Quantization {
    Gptq(Gptq),
    Awq(Awq),
    Compressed(Compressed),
    Fp8,
    Mxfp4,
}

/// Reads the text of `file`, a `config.json`; `None`: nothing is quantized.
pub(crate) fn read_quantization(
    file: &Path,
    text: &str,
) -> Result<Option<Quantization>, LoadError> {
    let json: Value = serde_json::from_str(text)
        .map_err(|error| LoadError::new(file, format!("not valid JSON: {error}")))?;
    let root = Fields::of_root(file, &json)?;
    let declared = match root.object("quantization_config")? {
        Some(declared) => Some(declared),
        None => root.object("compression_config")?,
    };
    let Some(declared) = declared else {
        return Ok(None);
    };
    let method = declared.opt_str("quant_method")?.unwrap_or("unnamed");
    Ok(Some(match method {
        "gptq" => Quantization::Gptq(gptq(&declared)?),
        "awq" => Quantization::Awq(awq(&declared)?),
        "compressed-tensors" => Quantization::Compressed(compressed(&declared)?),
        "fp8" => {
            needs(&declared, "fmt", &["e4m3"])?;
            Quantization::Fp8
        }
        "mxfp4" => Quantization::Mxfp4,
        other => {
            return Err(declared.error(
                "quant_method",
                format!(
                    "weights quantized by {other:?} are not supported; supported: gptq, awq, \
                     compressed-tensors, fp8, mxfp4, and quantized GGUF files"
                ),
            ));
        }
    }))
}

/// Refuses any value of a text field but the supported ones; the first is also its default.
fn needs(fields: &Fields<'_>, name: &str, supported: &[&str]) -> Result<(), LoadError> {
    let found = fields.opt_str(name)?.unwrap_or(supported[0]);
    if supported.iter().any(|s| s.eq_ignore_ascii_case(found)) {
        return Ok(());
    }
    let supported = supported.join(", ");
    Err(fields.error(
        name,
        format!("{found:?} is not supported; supported: {supported}"),
    ))
}

/// Bits that fields of words can have.
fn bits(fields: &Fields<'_>, name: &str, supported: &[usize]) -> Result<usize, LoadError> {
    let bits = fields.size(name)?;
    if supported.contains(&bits) {
        return Ok(bits);
    }
    Err(fields.error(
        name,
        format!("{bits} bits are not supported; supported: {supported:?}"),
    ))
}

/// `-1` stands for one group.
fn group_size(fields: &Fields<'_>) -> Result<Option<usize>, LoadError> {
    match fields.opt_number("group_size")? {
        None => Ok(None),
        Some(-1.0) => Ok(None),
        Some(_) => match fields.size("group_size")? {
            0 => Err(fields.error("group_size", "a group has at least one value")),
            size => Ok(Some(size)),
        },
    }
}

fn gptq(fields: &Fields<'_>) -> Result<Gptq, LoadError> {
    let format = fields.opt_str("checkpoint_format")?.unwrap_or("gptq");
    let zero_offset = match format {
        "gptq" => 1,
        "gptq_v2" => 0,
        other => {
            return Err(fields.error(
                "checkpoint_format",
                format!("{other:?} is not supported; supported: gptq, gptq_v2"),
            ));
        }
    };
    Ok(Gptq {
        bits: bits(fields, "bits", &[2, 3, 4, 8])?,
        group_size: group_size(fields)?,
        zero_offset,
    })
}

fn awq(fields: &Fields<'_>) -> Result<Awq, LoadError> {
    bits(fields, "bits", &[4])?;
    needs(fields, "version", &["gemm"])?;
    fields.needs("zero_point", true)?;
    Ok(Awq {
        group_size: group_size(fields)?,
    })
}

fn compressed(fields: &Fields<'_>) -> Result<Compressed, LoadError> {
    let groups = fields
        .object("config_groups")?
        .ok_or_else(|| fields.error("config_groups", "is missing"))?;
    let mut found: Option<(Compressed, &str)> = None;
    for name in groups.names() {
        let Some(group) = groups.object(name)? else {
            continue;
        };
        let Some(weights) = group.object("weights")? else {
            continue;
        };
        let method = compressed_weights(fields, &group, &weights)?;
        match &found {
            Some((other, first)) if *other != method => {
                let message =
                    format!("differs from `{first}`; one way for all weights is supported");
                return Err(groups.error(name, message));
            }
            _ => found = Some((method, name)),
        }
    }
    found
        .map(|(method, _)| method)
        .ok_or_else(|| fields.error("config_groups", "says nothing of weights"))
}

fn compressed_weights(
    fields: &Fields<'_>,
    group: &Fields<'_>,
    weights: &Fields<'_>,
) -> Result<Compressed, LoadError> {
    // A group may have a format of its own.
    let format = match group.opt_str("format")? {
        Some(format) => format,
        None => fields.opt_str("format")?.unwrap_or("dense"),
    };
    let kind = weights.opt_str("type")?.unwrap_or("int");
    let (format, supported): (_, &[usize]) = match (format, kind) {
        ("pack-quantized", "int") => (Format::Packed, &[4, 8]),
        ("int-quantized" | "naive-quantized", "int") => (Format::Int, &[8]),
        ("float-quantized" | "naive-quantized", "float") => (Format::Float, &[8]),
        (format, kind) => {
            return Err(fields.error(
                "format",
                format!(
                    "{format:?} of type {kind:?} is not supported; supported: pack-quantized \
                     (int), int-quantized (int), float-quantized (float)"
                ),
            ));
        }
    };
    needs(
        weights,
        "strategy",
        &["channel", "tensor", "group", "block"],
    )?;
    Ok(Compressed {
        format,
        bits: bits(weights, "num_bits", supported)?,
        group_size: group_size(weights)?,
    })
}
