//! `compressed-tensors`: whole numbers packed in words (`pack-quantized`) or as bytes
//! (`int-quantized`), or floats of eight bits (`float-quantized`).

use safetensors::Dtype;

use super::codes::{Codes, Groups};
use super::raw::field;
use super::{Assembled, Wanted, fp8};
use crate::LoadError;
use crate::lookup::Lookup;

/// What `config.json` says of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Compressed {
    pub(super) format: Format,
    pub(super) bits: usize,
    /// `None`: one group for a row, or one scale for all.
    pub(super) group_size: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Packed,
    Int,
    Float,
}

pub(super) fn assemble(
    lookup: &Lookup<'_>,
    method: &Compressed,
    wanted: Wanted<'_>,
) -> Result<Option<Assembled>, LoadError> {
    if wanted.expert.is_some() {
        return Ok(None);
    }
    match method.format {
        Format::Float => fp8::assemble(lookup, wanted),
        Format::Packed => packed(lookup, method, wanted),
        Format::Int => int(lookup, method, wanted),
    }
}

/// `weight_packed` `[n_out, n_in * bits / 32]`, numbers made unsigned by half their range;
/// zero points, if any, packed along the outputs.
fn packed(
    lookup: &Lookup<'_>,
    method: &Compressed,
    wanted: Wanted<'_>,
) -> Result<Option<Assembled>, LoadError> {
    let (n_out, n_in, bits) = (wanted.n_out, wanted.n_in, method.bits);
    let name = |end: &str| format!("{}.{end}", wanted.layer());
    if !lookup.has(&name("weight_packed")) {
        return Ok(None);
    }
    let per_word = 32 / bits;
    let half = 1 << (bits - 1);
    let packed_name = name("weight_packed");
    let n_words = n_in.div_ceil(per_word);
    let tensor = lookup.raw(&packed_name)?;
    let words = tensor
        .expect(&packed_name, &[Dtype::I32], &[n_out, n_words])?
        .words();
    lookup.ignore(&name("weight_shape"));
    let group_size = method.group_size.unwrap_or(n_in);
    let n_groups = n_in.div_ceil(group_size);
    let zero_name = name("weight_zero_point");
    let zeros = match lookup.has(&zero_name) {
        false => vec![0; n_out * n_groups],
        true => {
            let shape = [n_out.div_ceil(per_word), n_groups];
            let words = lookup
                .raw(&zero_name)?
                .expect(&zero_name, &[Dtype::I32], &shape)?
                .words();
            let zero = |at: usize| {
                let (out, group) = (at / n_groups, at % n_groups);
                let word = words[out / per_word * n_groups + group];
                field(|_| word, bits, out % per_word) - half
            };
            (0..n_out * n_groups).map(zero).collect()
        }
    };
    let groups = Groups::read(lookup, &name("weight_g_idx"), n_in, group_size)?;
    let mut codes = Vec::with_capacity(n_out * n_in);
    for (out, words) in words.chunks_exact(n_words).enumerate() {
        for i in 0..n_in {
            let zero = zeros[out * n_groups + groups.of(i)];
            codes.push((field(|at| words[at], bits, i) - half - zero) as i16);
        }
    }
    let scales = scales(lookup, &name("weight_scale"), n_out, n_groups)?;
    Ok(Some(
        Codes {
            codes,
            scales,
            groups,
        }
        .assemble(wanted),
    ))
}

/// `weight` of bytes.
fn int(
    lookup: &Lookup<'_>,
    method: &Compressed,
    wanted: Wanted<'_>,
) -> Result<Option<Assembled>, LoadError> {
    let (n_out, n_in) = (wanted.n_out, wanted.n_in);
    if !lookup.has(wanted.name) || lookup.peek(wanted.name)?.dtype != Dtype::I8 {
        return Ok(None);
    }
    let name = |end: &str| format!("{}.{end}", wanted.layer());
    let tensor = lookup
        .raw(wanted.name)?
        .expect(wanted.name, &[Dtype::I8], &[n_out, n_in])?;
    let group_size = method.group_size.unwrap_or(n_in);
    let n_groups = n_in.div_ceil(group_size);
    let zero_name = name("weight_zero_point");
    let zeros: Vec<i16> = match lookup.has(&zero_name) {
        false => vec![0; n_out * n_groups],
        true => {
            let zeros = lookup.raw(&zero_name)?;
            if zeros.dtype != Dtype::I8 || zeros.bytes.is_empty() {
                return Err(
                    zeros.error(&zero_name, format!("expected I8, found {:?}", zeros.dtype))
                );
            }
            let zeros = zeros.bytes.iter().map(|byte| i16::from(byte.cast_signed()));
            spread(zeros.collect(), n_out, n_groups)
                .ok_or_else(|| tensor.error(&zero_name, "has another shape than the groups"))?
        }
    };
    let code = |(at, byte): (usize, &u8)| {
        let (out, group) = (at / n_in, at % n_in / group_size);
        i16::from(byte.cast_signed()) - zeros[out * n_groups + group]
    };
    let codes = tensor.bytes.iter().enumerate().map(code).collect();
    for end in ["input_scale", "input_zero_point"] {
        lookup.ignore(&name(end));
    }
    let scales = scales(lookup, &name("weight_scale"), n_out, n_groups)?;
    let groups = Groups::Even(group_size);
    Ok(Some(
        Codes {
            codes,
            scales,
            groups,
        }
        .assemble(wanted),
    ))
}

fn scales(
    lookup: &Lookup<'_>,
    name: &str,
    n_out: usize,
    n_groups: usize,
) -> Result<Vec<f32>, LoadError> {
    let tensor = lookup.raw(name)?;
    spread(tensor.floats(name)?, n_out, n_groups).ok_or_else(|| {
        let message = format!(
            "expected one scale, or one for each of {n_out} rows and {n_groups} groups, found \
             shape {:?}",
            tensor.shape
        );
        tensor.error(name, message)
    })
}

/// One value for all becomes one for each.
fn spread<T: Copy>(values: Vec<T>, n_out: usize, n_groups: usize) -> Option<Vec<T>> {
    match values.len() {
        1 => Some(vec![values[0]; n_out * n_groups]),
        n => (n == n_out * n_groups).then_some(values),
    }
}
