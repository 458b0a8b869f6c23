//! A linear layer's weights in memory, packed in tiles of 16 output columns.

use super::Cpu;
use super::dense;
use super::quant::TileBytes;
use super::shared::SharedMut;
use crate::format::layout::{GROUP, LINE, Layout, TILE};
use crate::format::{self, centred};
use crate::memory::{OutOfMemory, Pages, Plain};
use crate::{Numerics, WeightSource, WeightType};

#[derive(Debug)]
pub(crate) enum Packed {
    /// See [`super::dense`].
    Dense(Pages),
    /// See [`crate::format::layout`].
    Groups { lines: Pages, scales: Pages },
}

#[derive(Debug)]
pub(crate) struct PackedLinear {
    pub(crate) ty: WeightType,
    pub(crate) numerics: Numerics,
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
    pub(crate) packed: Packed,
}

impl PackedLinear {
    /// Packs a source whose sizes have been checked, tiles in parallel.
    pub(crate) fn pack(
        cpu: &Cpu,
        source: &WeightSource<'_>,
        numerics: Numerics,
    ) -> Result<Self, OutOfMemory> {
        let &WeightSource {
            ty, n_out, n_in, ..
        } = source;
        let row_bytes = n_in / ty.block_elements() * ty.block_bytes();
        let n_tiles = n_out.div_ceil(TILE);
        let rows_of = |tile: usize| {
            let end = n_out.min((tile + 1) * TILE);
            &source.bytes[tile * TILE * row_bytes..end * row_bytes]
        };
        let packed = if ty.is_quantized() {
            let layout = Layout::of(ty);
            let n_lines = n_in / GROUP * layout.n_lines();
            let n_scales = layout.tile_scale_bytes(n_in / GROUP);
            let mut lines = Pages::zeroed(n_tiles * n_lines * LINE)?;
            let mut scales = Pages::zeroed(n_tiles * n_scales)?;
            let all_lines = SharedMut::new(lines.as_mut_slice::<[u8; LINE]>());
            let all_scales = SharedMut::new(scales.as_mut_slice::<u8>());
            cpu.pool.run(n_tiles, &|tile, _| {
                // SAFETY: tiles do not overlap.
                let lines = unsafe { all_lines.part(tile * n_lines, n_lines) };
                // SAFETY: as above.
                let scales = unsafe { all_scales.part(tile * n_scales, n_scales) };
                if row_bytes > 0 {
                    format::pack(ty, rows_of(tile), row_bytes, lines, scales);
                }
            });
            Packed::Groups { lines, scales }
        } else {
            let (step, step_bytes) = dense::step(ty);
            let tile_bytes = n_in.div_ceil(step) * step_bytes;
            let mut pages = Pages::zeroed(n_tiles * tile_bytes)?;
            let all = SharedMut::new(pages.as_mut_slice::<u8>());
            cpu.pool.run(n_tiles, &|tile, _| {
                // SAFETY: tiles do not overlap.
                let bytes = unsafe { all.part(tile * tile_bytes, tile_bytes) };
                if n_in > 0 {
                    dense::pack(ty, rows_of(tile), n_in, bytes);
                }
            });
            Packed::Dense(pages)
        };
        Ok(Self {
            ty,
            numerics,
            n_out,
            n_in,
            packed,
        })
    }

    pub(crate) fn n_tiles(&self) -> usize {
        self.n_out.div_ceil(TILE)
    }

    /// Whether it takes int8 activations.
    pub(crate) fn is_native(&self) -> bool {
        self.ty.is_quantized() && self.numerics == Numerics::Native
    }

    /// Whether it takes activations in pairs of bf16.
    pub(crate) fn takes_pairs(&self) -> bool {
        self.ty == WeightType::BF16 && self.numerics == Numerics::Native
    }

    /// `T` tiles of dense weights from `first` on, in steps of inputs.
    #[inline(always)]
    pub(crate) fn dense_tiles<P: Plain, const T: usize>(&self, first: usize) -> [&[P]; T] {
        let Packed::Dense(pages) = &self.packed else {
            unreachable!("dense types are packed densely")
        };
        let all = pages.as_slice();
        let n_steps = self.n_in.div_ceil(dense::step(self.ty).0);
        std::array::from_fn(|t| &all[(first + t) * n_steps..][..n_steps])
    }

    pub(crate) fn n_bytes(&self) -> usize {
        match &self.packed {
            Packed::Dense(pages) => pages.n_bytes(),
            Packed::Groups { lines, scales } => lines.n_bytes() + scales.n_bytes(),
        }
    }

    /// The memory of some tiles, in pieces.
    pub(crate) fn memory_of(&self, tiles: std::ops::Range<usize>) -> [&[u8]; 2] {
        let part = |pages| part_of(pages, self.n_tiles(), &tiles);
        match &self.packed {
            Packed::Dense(pages) => [part(pages), &[]],
            Packed::Groups { lines, scales } => [part(lines), part(scales)],
        }
    }

    /// A tile of quantized weights; `layout` is that of `ty`.
    #[inline(always)]
    pub(crate) fn tile(&self, layout: Layout, tile: usize) -> TileBytes<'_> {
        let Packed::Groups { lines, scales } = &self.packed else {
            unreachable!("block formats are packed in groups")
        };
        let n_lines = self.n_in / GROUP * layout.n_lines();
        let n_scales = layout.tile_scale_bytes(self.n_in / GROUP);
        TileBytes {
            lines: &lines.as_slice()[tile * n_lines..][..n_lines],
            scales: &scales.as_slice()[tile * n_scales..][..n_scales],
        }
    }

    /// Row `row` of the weights, widened exactly: what its file's bytes dequantize to.
    pub(crate) fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let (tile, column) = (row / TILE, row % TILE);
        match &self.packed {
            Packed::Dense(pages) => {
                let (step, step_bytes) = dense::step(self.ty);
                let tile_bytes = self.n_in.div_ceil(step) * step_bytes;
                let bytes = &pages.as_slice::<u8>()[tile * tile_bytes..][..tile_bytes];
                for (k, out) in out.iter_mut().enumerate() {
                    let at = dense::value_offset(self.ty, column, k);
                    let value = &bytes[at..at + self.ty.block_bytes()];
                    crate::dequantize(self.ty, value, std::slice::from_mut(out));
                }
            }
            Packed::Groups { .. } => {
                let layout = Layout::of(self.ty);
                let bytes = self.tile(layout, tile);
                for (group, out) in out.chunks_exact_mut(GROUP).enumerate() {
                    let codes = format::unpack_codes(layout, bytes.lines, group, column);
                    for (k, out) in out.iter_mut().enumerate() {
                        let (scale, offset) =
                            format::unpack_scale(layout, bytes.scales, group, k, column);
                        *out = scale * centred(layout, codes[k]) + offset;
                    }
                }
            }
        }
    }
}

/// Where `tiles` of `n_tiles` lie.
fn part_of<'a>(pages: &'a Pages, n_tiles: usize, tiles: &std::ops::Range<usize>) -> &'a [u8] {
    let bytes = pages.as_slice::<u8>();
    let n_bytes = bytes.len() / n_tiles.max(1);
    &bytes[tiles.start * n_bytes..tiles.end * n_bytes]
}
