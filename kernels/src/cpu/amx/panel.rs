//! Quantized weights as tiles: codes put together and centred, scales widened, once for all rows
//! of a call.

use std::ops::Range;

use super::streams::Streams;
use crate::cpu::packed::PackedLinear;
use crate::cpu::quant::{Format, Group, Super, TileBytes};
use crate::cpu::simd::{LANES, Simd};
use crate::format::layout::{GROUP, Layout, SUPER};
use crate::memory::Line;

/// Tiles of columns side by side: as many streams of memory.
pub(super) const COLUMNS: usize = 4;
/// Groups of a part of a sum, a multiple of what shares scales: four tiles of columns of these take
/// at most 100 KB beside 24 KB of each sixteen rows.
pub(super) const PART: usize = 32;
/// Lines of codes of a group: each is four inputs of sixteen columns.
pub(super) const CODES: usize = 8;

/// Some groups of up to [`COLUMNS`] tiles. Of a group there are [`CODES`] lines of signed bytes,
/// then for each of its halves that has scales of its own a line of scales and, where the format
/// has minima, one of these.
#[derive(Debug, Default)]
pub(super) struct Panel {
    lines: Vec<Line>,
}

/// Lines of a group.
pub(super) const fn lines_per_group(layout: Layout) -> usize {
    CODES + layout.n_halves() * (1 + layout.has_min() as usize)
}

impl Panel {
    /// Unpacks some groups of some tiles.
    #[inline(always)]
    pub(super) fn unpack<S: Simd, Q: Format>(
        &mut self,
        s: S,
        weight: &PackedLinear,
        columns: Range<usize>,
        groups: Range<usize>,
    ) {
        let n_lines = COLUMNS * PART * lines_per_group(Q::LAYOUT);
        if self.lines.len() < n_lines {
            self.lines.resize(n_lines, Line([0.0; LANES]));
        }
        let tiles = std::array::from_fn::<_, COLUMNS, _>(|t| {
            weight.tile(Q::LAYOUT, columns.end.min(columns.start + t + 1) - 1)
        });
        let mut supers = [Super::none(s); COLUMNS];
        for (i, g) in groups.enumerate() {
            for t in 0..columns.len() {
                if Q::LAYOUT.has_super() && g % SUPER == 0 {
                    supers[t] = Super::read::<Q>(s, tiles[t], g);
                }
                let n = lines_per_group(Q::LAYOUT);
                let lines = &mut self.lines[(t * PART + i) * n..][..n];
                unpack_group::<S, Q>(s, tiles[t], supers[t], g, lines);
            }
        }
    }

    /// The groups of one of the tiles.
    #[inline(always)]
    pub(super) fn groups(&self, layout: Layout, tile: usize, n_groups: usize) -> &[Line] {
        let n = lines_per_group(layout);
        &self.lines[tile * PART * n..][..n_groups * n]
    }
}

#[inline(always)]
fn unpack_group<S: Simd, Q: Format>(
    s: S,
    tile: TileBytes<'_>,
    of: Super<S>,
    g: usize,
    lines: &mut [Line],
) {
    let layout = Q::LAYOUT;
    let group = Group::read::<Q>(s, tile, of, g);
    let (codes, scales) = lines.split_at_mut(CODES);
    for (j, Line(line)) in codes.iter_mut().enumerate() {
        s.store(s.reinterpret(group.quad::<Q>(s, j)), line);
        for lane in line {
            *lane = f32::from_bits(centred(layout, lane.to_bits()));
        }
    }
    for half in 0..layout.n_halves() {
        let n = 1 + usize::from(layout.has_min());
        let scales = &mut scales[half * n..][..n];
        s.store(group.scale[half], &mut scales[0].0);
        if layout.has_min() {
            s.store(group.min[half], &mut scales[1].0);
        }
    }
}

/// Four codes minus their zero, byte by byte: no borrow crosses the highest bits, which are put
/// right in the end.
#[inline(always)]
fn centred(layout: Layout, codes: u32) -> u32 {
    const HIGH: u32 = 0x8080_8080;
    let zero = layout.zero.cast_unsigned() * 0x0101_0101;
    ((codes | HIGH) - (zero & !HIGH)) ^ ((codes ^ !zero) & HIGH)
}

/// The packed bytes of some groups of some tiles, to be asked for within some calls.
pub(super) fn streams(
    layout: Layout,
    weight: &PackedLinear,
    columns: Range<usize>,
    groups: Range<usize>,
    n_calls: usize,
) -> Streams<'_> {
    let mut pieces = [&[][..]; 2 * COLUMNS];
    let n = layout.n_lines();
    for (tile, pieces) in columns.zip(pieces.chunks_exact_mut(2)) {
        let bytes = weight.tile(layout, tile);
        let scales = layout.tile_scale_bytes(groups.start)..layout.tile_scale_bytes(groups.end);
        pieces[0] = bytes.lines[groups.start * n..groups.end * n].as_flattened();
        pieces[1] = &bytes.scales[scales];
    }
    Streams::new(pieces, n_calls)
}

const _: () = assert!(PART.is_multiple_of(SUPER) && CODES * 4 == GROUP);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightType;

    #[test]
    fn codes_are_centred_byte_by_byte() {
        for ty in WeightType::QUANTIZED {
            let layout = Layout::of(ty);
            let n_codes = if layout.codebook {
                256
            } else {
                1 << layout.n_lines()
            };
            for code in 0..n_codes {
                let codes = [0, code, n_codes - 1, code].map(|code| code as u8);
                let found = centred(layout, u32::from_le_bytes(codes)).to_le_bytes();
                let expected = codes.map(|code| (i32::from(code) - layout.zero) as i8);
                assert_eq!(found.map(u8::cast_signed), expected, "{ty:?} {code}");
            }
        }
    }
}
