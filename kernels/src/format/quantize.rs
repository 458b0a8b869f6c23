//! From f32 to the storage formats: rounding to nearest, scales by [`super::fit`] where a format
//! has groups of scales. No knowledge of activations goes into it.

use half::{bf16, f16};

use super::blocks::{IQ4_NL_VALUES, RawBlock};
use super::fit;
use super::join::join;
use super::layout::{Layout, ScaleKind};
use crate::WeightType;

const EMPTY: RawBlock = RawBlock {
    codes: [0; 256],
    d: 0,
    m: 0,
    scales: [0; 16],
    mins: [0; 16],
};

/// Stores values in a format, dense or blocks: [`crate::dequantize`] backwards, as near as the
/// format allows. Finite values are assumed.
///
/// # Panics
/// When `values` and `out` do not hold the same whole number of blocks.
pub fn quantize(ty: WeightType, values: &[f32], out: &mut [u8]) {
    let n_blocks = out.len() / ty.block_bytes();
    assert_eq!(
        (out.len(), values.len()),
        (n_blocks * ty.block_bytes(), n_blocks * ty.block_elements()),
        "{ty:?}: values and bytes must be the same whole number of blocks"
    );
    let pairs = values
        .chunks_exact(ty.block_elements())
        .zip(out.chunks_exact_mut(ty.block_bytes()));
    for (values, out) in pairs {
        match ty {
            WeightType::F32 => out.copy_from_slice(&values[0].to_le_bytes()),
            WeightType::F16 => out.copy_from_slice(&f16::from_f32(values[0]).to_le_bytes()),
            WeightType::BF16 => out.copy_from_slice(&bf16::from_f32(values[0]).to_le_bytes()),
            _ => join(ty, &block(ty, values), out),
        }
    }
}

/// One block of a format with one scale for 32 values: value = scale * code, with codes that are
/// whole numbers of the format's range.
///
/// # Panics
/// When `ty` has no such blocks, a code is out of its range, or `out` is not one block.
pub fn encode_block(ty: WeightType, scale: f16, codes: &[i8; 32], out: &mut [u8]) {
    let layout = Layout::of(ty);
    assert!(
        layout.scales == ScaleKind::PerGroup && !layout.codebook,
        "{ty:?} has other scales than one for each 32 values"
    );
    let mut block = EMPTY;
    block.d = scale.to_bits();
    for (to, code) in block.codes.iter_mut().zip(codes) {
        let shifted = i32::from(*code) + layout.zero;
        assert!(
            (0..1 << layout.n_lines()).contains(&shifted),
            "{code} is no code of {ty:?}"
        );
        *to = shifted as u8;
    }
    join(ty, &block, out);
}

fn block(ty: WeightType, values: &[f32]) -> RawBlock {
    let layout = Layout::of(ty);
    let largest = (1_i32 << layout.n_lines()) - 1;
    match layout.scales {
        ScaleKind::PerGroup if layout.codebook => codebook(values),
        // Eight bits need no search, and their range is used evenly.
        ScaleKind::PerGroup if ty == WeightType::Q8_0 => one_scale(values, -127, 127, layout),
        ScaleKind::PerGroup => one_scale(values, -layout.zero, largest - layout.zero, layout),
        ScaleKind::PerGroupMin => scale_and_offset(values, largest),
        ScaleKind::Super32Min => with_minima(values, 32, largest as u8, 63),
        ScaleKind::Super16Min => with_minima(values, 16, largest as u8, 15),
        ScaleKind::Super16 => signed_scales(values, layout, largest),
    }
}

/// A scale as the format stores it, and its inverse (0 for 0).
fn stored(scale: f32) -> (u16, f32) {
    let scale = f16::from_f32(scale);
    (scale.to_bits(), scale.to_f32())
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn one_scale(values: &[f32], low: i32, high: i32, layout: Layout) -> RawBlock {
    let mut block = EMPTY;
    let scale = if low == -127 {
        values.iter().fold(0.0_f32, |a, b| a.max(b.abs())) / 127.0
    } else {
        fit::scale(values, low, high)
    };
    let (bits, scale) = stored(scale);
    block.d = bits;
    let inverse = inverse(scale);
    for (code, x) in block.codes.iter_mut().zip(values) {
        let q = (x * inverse).round().clamp(low as f32, high as f32);
        *code = (q as i32 + layout.zero) as u8;
    }
    block
}

fn scale_and_offset(values: &[f32], largest: i32) -> RawBlock {
    let mut block = EMPTY;
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (d_bits, d) = stored((high - low) / largest as f32);
    let (m_bits, m) = stored(low);
    (block.d, block.m) = (d_bits, m_bits);
    let inverse = inverse(d);
    for (code, x) in block.codes.iter_mut().zip(values) {
        *code = ((x - m) * inverse).round().clamp(0.0, largest as f32) as u8;
    }
    block
}

/// Groups with a scale and a minimum each, both small whole multiples of the block's.
fn with_minima(values: &[f32], group: usize, high: u8, most: u8) -> RawBlock {
    let mut block = EMPTY;
    let n_groups = values.len() / group;
    let mut fits = [(0.0_f32, 0.0_f32); 16];
    for (fit, values) in fits.iter_mut().zip(values.chunks_exact(group)) {
        *fit = fit::scale_and_min(values, high);
    }
    let fits = &fits[..n_groups];
    let largest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0_f32, f32::max);
    let (d_bits, d) = stored(largest(|fit| fit.0) / f32::from(most));
    let (m_bits, m) = stored(largest(|fit| fit.1) / f32::from(most));
    (block.d, block.m) = (d_bits, m_bits);
    let (d_inverse, m_inverse) = (inverse(d), inverse(m));
    for (g, (scale, min)) in fits.iter().enumerate() {
        let multiple = |x: f32, inverse: f32| (x * inverse).round().clamp(0.0, most.into()) as u8;
        let scale_code = multiple(*scale, d_inverse);
        block.scales[g] = scale_code.cast_signed();
        block.mins[g] = multiple(*min, m_inverse);
        let offset = m * f32::from(block.mins[g]);
        let inverse = inverse(d * f32::from(scale_code));
        let codes = &mut block.codes[g * group..][..group];
        for (code, x) in codes.iter_mut().zip(&values[g * group..][..group]) {
            *code = ((x + offset) * inverse).round().clamp(0.0, high.into()) as u8;
        }
    }
    block
}

/// Groups of 16 with a signed whole multiple of the block's scale each.
fn signed_scales(values: &[f32], layout: Layout, largest: i32) -> RawBlock {
    let (low, high) = (-layout.zero, largest - layout.zero);
    // Q3_K has six bits for a scale, Q6_K eight.
    let (least, most) = if layout.high_bits == 1 {
        (-32.0, 31.0)
    } else {
        (-128.0, 127.0)
    };
    let mut block = EMPTY;
    let mut fits = [0.0_f32; 16];
    for (fit, values) in fits.iter_mut().zip(values.chunks_exact(16)) {
        *fit = fit::scale(values, low, high);
    }
    let extreme = fits
        .iter()
        .copied()
        .fold(0.0_f32, |a, b| if b.abs() > a.abs() { b } else { a });
    let (bits, d) = stored(extreme / least);
    block.d = bits;
    let d_inverse = inverse(d);
    for (g, fit) in fits.iter().enumerate() {
        block.scales[g] = (fit * d_inverse).round().clamp(least, most) as i8;
        let inverse = inverse(d * f32::from(block.scales[g]));
        let codes = &mut block.codes[g * 16..][..16];
        for (code, x) in codes.iter_mut().zip(&values[g * 16..][..16]) {
            let q = (x * inverse).round().clamp(low as f32, high as f32);
            *code = (q as i32 + layout.zero) as u8;
        }
    }
    block
}

/// The nearest of sixteen uneven steps; a few scales are tried.
fn codebook(values: &[f32]) -> RawBlock {
    let extreme = values
        .iter()
        .copied()
        .fold(0.0_f32, |a, b| if b.abs() > a.abs() { b } else { a });
    let first = f32::from(IQ4_NL_VALUES[0]);
    let nearest = |x: f32| {
        let distance = |code: &usize| (x - f32::from(IQ4_NL_VALUES[*code])).abs();
        (0..16_usize)
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
            .unwrap_or(0)
    };
    let mut best = (f32::INFINITY, 0_u16);
    for step in -7..=7_i32 {
        let trial = inverse(extreme) * (first - step as f32);
        let (mut xq, mut qq) = (0.0_f32, 0.0_f32);
        for x in values {
            let q = f32::from(IQ4_NL_VALUES[nearest(x * trial)]);
            xq += x * q;
            qq += q * q;
        }
        let (bits, scale) = stored(xq / qq);
        let inverse = inverse(scale);
        let error: f32 = values
            .iter()
            .map(|x| (x - scale * f32::from(IQ4_NL_VALUES[nearest(x * inverse)])).powi(2))
            .sum();
        if error < best.0 {
            best = (error, bits);
        }
    }
    let mut block = EMPTY;
    block.d = best.1;
    let inverse = inverse(f16::from_bits(best.1).to_f32());
    for (code, x) in block.codes.iter_mut().zip(values) {
        *code = nearest(x * inverse) as u8;
    }
    block
}
