//! GPTQ: `qweight` `[n_in * bits / 32, n_out]` of words along the inputs, `qzeros`
//! `[n_groups, n_out * bits / 32]` of words along the outputs, `scales` `[n_groups, n_out]`, and
//! `g_idx` `[n_in]` where inputs were quantized in an order of their own.
//!
//! The first form of the format stores zero points less one.

use safetensors::Dtype;

use super::codes::{Codes, Groups};
use super::raw::field;
use super::{Assembled, Wanted, by_output};
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
    let group_size = method.group_size.unwrap_or(n_in);
    let n_groups = n_in.div_ceil(group_size);
    let take = |end: &str, dtypes: &[Dtype], shape: &[usize]| {
        let name = name(end);
        lookup.raw(&name)?.expect(&name, dtypes, shape)
    };
    for n in [n_in, n_out] {
        if n * bits % 32 != 0 {
            let name = name("qweight");
            let message = format!("{n} fields of {bits} bits do not fill whole words");
            return Err(lookup.raw(&name)?.error(&name, message));
        }
    }
    let (in_words, out_words) = (n_in * bits / 32, n_out * bits / 32);
    let words = [Dtype::I32, Dtype::U32];
    let qweight = take("qweight", &words, &[in_words, n_out])?.words();
    let qzeros = take("qzeros", &words, &[n_groups, out_words])?.words();
    let scales = by_output(lookup, &name("scales"), n_groups, n_out)?;
    let groups = Groups::read(lookup, &name("g_idx"), n_in, group_size)?;
    let zero = |group: usize, out: usize| {
        let row = &qzeros[group * out_words..];
        field(|at| row[at], bits, out) + method.zero_offset
    };
    let zeros: Vec<i32> = (0..n_groups * n_out)
        .map(|at| zero(at / n_out, at % n_out))
        .collect();
    let mut codes = Vec::with_capacity(n_out * n_in);
    for out in 0..n_out {
        for i in 0..n_in {
            let code = field(|at| qweight[at * n_out + out], bits, i);
            codes.push((code - zeros[groups.of(i) * n_out + out]) as i16);
        }
    }
    Ok(Some(
        Codes {
            codes,
            scales,
            groups,
        }
        .assemble(wanted),
    ))
}
