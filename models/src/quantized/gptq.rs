//! GPTQ: `qweight` `[n_in * bits / 32, n_out]` of words along the inputs, `qzeros`
//! `[n_groups, n_out * bits / 32]` of words along the outputs, `scales` `[n_groups, n_out]`, and
//! `g_idx` `[n_in]` where inputs were quantized in an order of their own.
//!
//! The first form of the format stores zero points less one.

use safetensors::Dtype;

use super::codes::{Codes, Groups};
use super::raw::field;
use super::{Assembled, Wanted};
use crate::LoadError;
use crate::lookup::Lookup;

/// What `config.json` says of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gptq {
    pub(super) bits: usize,
    /// `None`: one group.
    pub(super) group_size: Option<usize>,
    /// What is added to stored zero points.
    pub(super) zero_offset: i32,
}

pub(super) fn assemble(
    lookup: &Lookup<'_>,
    method: &Gptq,
    wanted: Wanted<'_>,
) -> Result<Option<Assembled>, LoadError> {
    let (n_out, n_in, bits) = (wanted.n_out, wanted.n_in, method.bits);
    let name = |end: &str| format!("{}.{end}", wanted.layer());
    if wanted.expert.is_some() || !lookup.has(&name("qweight")) {
        return Ok(None);
    }
    let per_word = 32 / bits;
    let group_size = method.group_size.unwrap_or(n_in);
    let n_groups = n_in.div_ceil(group_size);
    let take = |end: &str, dtypes: &[Dtype], shape: &[usize]| {
        let name = name(end);
        lookup.raw(&name)?.expect(&name, dtypes, shape)
    };
    let words = [Dtype::I32, Dtype::U32];
    let qweight = take("qweight", &words, &[n_in / per_word, n_out])?.words();
    let qzeros = take("qzeros", &words, &[n_groups, n_out / per_word])?.words();
    let scales_name = name("scales");
    let scales = take(
        "scales",
        &[Dtype::F16, Dtype::BF16, Dtype::F32],
        &[n_groups, n_out],
    )?;
    let scales = scales.floats(&scales_name)?;
    let groups = match lookup.has(&name("g_idx")) {
        false => Groups::Even(group_size),
        true => {
            let tensor = take("g_idx", &words, &[n_in])?;
            let groups: Vec<usize> = tensor.words().iter().map(|group| *group as usize).collect();
            if groups.iter().any(|group| *group >= n_groups) {
                let message = format!("a group is not below {n_groups}");
                return Err(tensor.error(&name("g_idx"), message));
            }
            let is_even = groups.iter().enumerate().all(|(i, g)| *g == i / group_size);
            if is_even {
                Groups::Even(group_size)
            } else {
                Groups::Listed(groups)
            }
        }
    };
    let zero = |group: usize, out: usize| {
        let row = &qzeros[group * (n_out / per_word)..];
        field(row, bits, out) + method.zero_offset
    };
    let zeros: Vec<i32> = (0..n_groups * n_out)
        .map(|at| zero(at / n_out, at % n_out))
        .collect();
    let group_of = |i: usize| match &groups {
        Groups::Even(size) => i / size,
        Groups::Listed(groups) => groups[i],
    };
    let mut codes = Vec::with_capacity(n_out * n_in);
    let mask = ((1_u64 << bits) - 1) as u32;
    for out in 0..n_out {
        for i in 0..n_in {
            let word = qweight[i / per_word * n_out + out] >> (bits * (i % per_word));
            codes.push(((word & mask) as i32 - zeros[group_of(i) * n_out + out]) as i16);
        }
    }
    let scales = (0..n_out * n_groups)
        .map(|at| scales[at % n_groups * n_out + at / n_groups])
        .collect();
    Ok(Some(
        Codes {
            codes,
            scales,
            groups,
        }
        .assemble(wanted),
    ))
}
