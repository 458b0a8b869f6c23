//! Writing blocks into the packed layout.

use half::f16;

use super::blocks::{RawBlock, split};
use super::layout::{GROUP, LINE, Layout, ScaleKind, TILE};
use crate::WeightType;

/// Packs one tile: up to 16 rows of a weight matrix, each `n_in` values of whole blocks, into
/// zeroed lines `[n_in / 32][n_lines][64]` and scales. Missing columns stay zero.
pub(crate) fn pack(
    ty: WeightType,
    rows: &[u8],
    row_bytes: usize,
    lines: &mut [[u8; LINE]],
    scales: &mut [u8],
) {
    let layout = Layout::of(ty);
    let groups_per_block = ty.block_elements() / GROUP;
    for (column, row) in rows.chunks_exact(row_bytes).enumerate() {
        debug_assert!(column < TILE);
        for (i, bytes) in row.chunks_exact(ty.block_bytes()).enumerate() {
            let block = split(ty, bytes);
            for part in 0..groups_per_block {
                let group = i * groups_per_block + part;
                let codes = &block.codes[part * GROUP..][..GROUP];
                let lines = &mut lines[group * layout.n_lines()..][..layout.n_lines()];
                put_codes(layout, codes, column, lines);
                put_scales(layout, &block, group, column, scales);
            }
        }
    }
}

fn put_codes(layout: Layout, codes: &[u8], column: usize, lines: &mut [[u8; LINE]]) {
    let (low, high) = lines.split_at_mut(layout.low_bits);
    let mask = ((1_u32 << layout.low_bits) - 1) as u8;
    for (quad, codes) in codes.chunks_exact(4).enumerate() {
        put_quad(low, quad, column, codes, |code| code & mask);
        if layout.high_bits > 0 {
            put_quad(high, quad, column, codes, |code| code >> layout.low_bits);
        }
    }
}

fn put_quad(
    plane: &mut [[u8; LINE]],
    quad: usize,
    column: usize,
    codes: &[u8],
    bits: impl Fn(u8) -> u8,
) {
    let n_bits = plane.len();
    let shift = n_bits * (quad / n_bits);
    let line = &mut plane[quad % n_bits][column * 4..][..4];
    for (byte, &code) in line.iter_mut().zip(codes) {
        *byte |= bits(code) << shift;
    }
}

fn put_f16(scales: &mut [u8], at: usize, column: usize, bits: u16) {
    scales[at + column * 2..][..2].copy_from_slice(&bits.to_le_bytes());
}

fn put_scales(layout: Layout, block: &RawBlock, group: usize, column: usize, scales: &mut [u8]) {
    let at = layout.group_offset(group);
    let at_super = layout.super_offset(group);
    let inner = group % 8;
    match layout.scales {
        ScaleKind::PerGroup => put_f16(scales, at, column, block.d),
        ScaleKind::PerGroupMin => {
            put_f16(scales, at, column, block.d);
            put_f16(scales, at + 32, column, block.m);
        }
        ScaleKind::Super32Min => {
            put_f16(scales, at_super, column, block.d);
            put_f16(scales, at_super + 32, column, block.m);
            scales[at + column] = block.scales[inner] as u8;
            scales[at + TILE + column] = block.mins[inner];
        }
        ScaleKind::Super16 => {
            put_f16(scales, at_super, column, block.d);
            for half in 0..2 {
                scales[at + half * TILE + column] = block.scales[inner * 2 + half] as u8;
            }
        }
        ScaleKind::Super16Min => {
            put_f16(scales, at_super, column, block.d);
            put_f16(scales, at_super + 32, column, block.m);
            for half in 0..2 {
                let i = inner * 2 + half;
                scales[at + half * TILE + column] = block.scales[i] as u8 | block.mins[i] << 4;
            }
        }
    }
}

/// The codes of one column in one group of a packed tile.
pub(crate) fn unpack_codes(
    layout: Layout,
    lines: &[[u8; LINE]],
    group: usize,
    column: usize,
) -> [u8; GROUP] {
    let lines = &lines[group * layout.n_lines()..][..layout.n_lines()];
    let (low, high) = lines.split_at(layout.low_bits);
    let bits = |plane: &[[u8; LINE]], k: usize| {
        let (quad, n_bits) = (k / 4, plane.len());
        let byte = plane[quad % n_bits][column * 4 + k % 4];
        byte >> (n_bits * (quad / n_bits)) & ((1_u32 << n_bits) - 1) as u8
    };
    std::array::from_fn(|k| {
        let mut code = bits(low, k);
        if !high.is_empty() {
            code |= bits(high, k) << layout.low_bits;
        }
        code
    })
}

/// Scale and offset of value `k` (0..32) of one column in one group of a packed tile.
pub(crate) fn unpack_scale(
    layout: Layout,
    scales: &[u8],
    group: usize,
    k: usize,
    column: usize,
) -> (f32, f32) {
    let at = layout.group_offset(group);
    let at_super = layout.super_offset(group);
    let half = |at: usize| {
        let at = at + column * 2;
        f16::from_le_bytes([scales[at], scales[at + 1]]).to_f32()
    };
    let byte = |at: usize| scales[at + column];
    match layout.scales {
        ScaleKind::PerGroup => (half(at), 0.0),
        ScaleKind::PerGroupMin => (half(at), half(at + 32)),
        ScaleKind::Super32Min => (
            half(at_super) * f32::from(byte(at)),
            -(half(at_super + 32) * f32::from(byte(at + TILE))),
        ),
        ScaleKind::Super16 => {
            let scale = byte(at + k / 16 * TILE).cast_signed();
            (half(at_super) * f32::from(scale), 0.0)
        }
        ScaleKind::Super16Min => {
            let packed = byte(at + k / 16 * TILE);
            (
                half(at_super) * f32::from(packed & 15),
                -(half(at_super + 32) * f32::from(packed >> 4)),
            )
        }
    }
}
