//! AWQ in the order of its `gemm` kernels: `qweight` `[n_in, n_out / 8]`, `qzeros`
//! `[n_groups, n_out / 8]` and `scales` `[n_groups, n_out]`. A word holds eight outputs, the even
//! ones before the odd ones.

use safetensors::Dtype;

use super::codes::{Codes, Groups};
use super::{Assembled, Wanted, by_output};
use crate::LoadError;
use crate::lookup::Lookup;

/// Which of a word's nibbles holds output 0, 1, ... of its eight.
const NIBBLE: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// What `config.json` says of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Awq {
    /// `None`: one group.
    pub(super) group_size: Option<usize>,
}

pub(super) fn assemble(
    lookup: &Lookup<'_>,
    method: &Awq,
    wanted: Wanted<'_>,
) -> Result<Option<Assembled>, LoadError> {
    let (n_out, n_in) = (wanted.n_out, wanted.n_in);
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
    let words = [Dtype::I32, Dtype::U32];
    let n_words = n_out / 8;
    let qweight = take("qweight", &words, &[n_in, n_words])?.words();
    let qzeros = take("qzeros", &words, &[n_groups, n_words])?.words();
    let scales = by_output(lookup, &name("scales"), n_groups, n_out)?;
    let nibble = |words: &[u32], row: usize, out: usize| {
        let word = words[row * n_words + out / 8];
        (word >> (4 * NIBBLE[out % 8]) & 15) as i16
    };
    let mut codes = Vec::with_capacity(n_out * n_in);
    for out in 0..n_out {
        for i in 0..n_in {
            codes.push(nibble(&qweight, i, out) - nibble(&qzeros, i / group_size, out));
        }
    }
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
