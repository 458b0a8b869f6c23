//! MXFP4 experts as gpt-oss stores them: `_blocks` `[n_experts, n_out, n_in / 32, 16]`, the even
//! values in low nibbles, and `_scales` `[n_experts, n_out, n_in / 32]`, powers of two.
//!
//! A value is one of 0, 1/2, 1, 3/2, 2, 3, 4, 6 and their negatives; twice that is a whole number
//! within five bits.

use safetensors::Dtype;

use super::codes::{Codes, Groups};
use super::{Assembled, Wanted};
use crate::LoadError;
use crate::lookup::Lookup;

const BLOCK: usize = 32;
/// Twice the values of the codes.
const DOUBLED: [i16; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

pub(super) fn assemble(
    lookup: &Lookup<'_>,
    wanted: Wanted<'_>,
) -> Result<Option<Assembled>, LoadError> {
    let (n_out, n_in) = (wanted.n_out, wanted.n_in);
    let (blocks_name, scales_name) = (
        format!("{}_blocks", wanted.name),
        format!("{}_scales", wanted.name),
    );
    let Some((n_experts, expert)) = wanted.expert else {
        return Ok(None);
    };
    if !lookup.has(&blocks_name) {
        return Ok(None);
    }
    let n_blocks = n_in / BLOCK;
    let shape = [n_experts, n_out, n_blocks, BLOCK / 2];
    let bytes = [Dtype::U8];
    let blocks = lookup
        .raw(&blocks_name)?
        .expect(&blocks_name, &bytes, &shape)?;
    let scales = lookup
        .raw(&scales_name)?
        .expect(&scales_name, &bytes, &shape[..3])?;
    if !n_in.is_multiple_of(BLOCK) {
        return Err(blocks.error(&blocks_name, format!("{n_in} inputs are no whole blocks")));
    }
    let of_expert = |bytes: &'_ [u8]| {
        let len = bytes.len() / n_experts;
        expert * len..(expert + 1) * len
    };
    let scale = |byte: &u8| match byte {
        255 => f32::NAN,
        // Halved, as the codes are doubled.
        _ => 2.0_f32.powi(i32::from(*byte) - 128),
    };
    let scales = scales.bytes[of_expert(scales.bytes)]
        .iter()
        .map(scale)
        .collect();
    let pairs = blocks.bytes[of_expert(blocks.bytes)].iter();
    let codes = pairs
        .flat_map(|byte| {
            [
                DOUBLED[usize::from(byte & 15)],
                DOUBLED[usize::from(byte >> 4)],
            ]
        })
        .collect();
    let groups = Groups::Even(BLOCK);
    Ok(Some(
        Codes {
            codes,
            scales,
            groups,
        }
        .assemble(wanted),
    ))
}
