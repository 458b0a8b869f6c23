//! Linear layers: from calls to chunks of tiles, from chunks to blocks of tiles by rows.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Cpu;
use super::activations::Activations;
use super::ahead::Ahead;
use super::amx::{self, Amx};
use super::dense::{self, Bf16, DenseFormat, F16, F32};
use super::packed::PackedLinear;
use super::quant::{self, Format, TileBytes};
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::format::Layout;
use crate::format::layout::TILE;
use crate::{LinearCall, Numerics, WeightType};

/// Chunks that a region is cut into for each thread, so that a slow thread can be relieved.
const CHUNKS_PER_THREAD: usize = 16;
/// The most tiles that a block takes; those of a chunk are a multiple of it where blocks take so many.
const CHUNK_TILES: usize = 4;
/// Rows of a block of integers where registers are few: what codes cost is shared by so many.
const FEW_REGISTERS_ROWS: usize = 16;
/// Inputs of a part of a sum, where many rows pass by wide weights: those of a block's tiles stay
/// near, beside those of its rows. A multiple of what any format takes at once.
const PART_INPUTS: usize = 1024;
/// Bytes of activations, of two each, that stay in the second level while tiles pass by.
const NEAR_BYTES: usize = 512 << 10;

/// Scratch of linear layers, kept between steps.
#[derive(Debug, Default)]
pub(crate) struct LinearScratch {
    activations: Mutex<Activations>,
}

/// What all chunks of an op share about one call.
struct Layer<'a> {
    weight: &'a PackedLinear,
    bias: Option<&'a [f32]>,
    out: SharedMut<'a, f32>,
    first_chunk: usize,
}

/// See [`crate::Device::linear_into`]; shapes are checked there. `next` is what is read after
/// it: a layer computes longer than it reads, which is time to bring that near.
pub(crate) fn linear_into(
    cpu: &Cpu,
    x: &[f32],
    n_rows: usize,
    calls: &mut [LinearCall<'_>],
    next: &[&[u8]],
) {
    let mut activations = cpu
        .linear_scratch
        .activations
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if calls.iter().any(|call| call.weight.packed().is_native()) {
        activations.quantize(cpu, x, n_rows);
    }
    let amx = Tiles::prepare(cpu, x, n_rows, calls, &activations);
    if amx.is_none() && calls.iter().any(|call| call.weight.packed().takes_pairs()) {
        activations.round(cpu, x, n_rows);
    }
    let n_tiles: usize = calls
        .iter()
        .map(|call| call.weight.packed().n_tiles())
        .sum();
    let n_chunks = cpu.pool.n_threads() * CHUNKS_PER_THREAD;
    let few_registers =
        !cpu.isa.is_wide() && calls.iter().all(|call| call.weight.packed().is_native());
    // As `Walk::run` takes them.
    let at_a_time = if few_registers && n_rows > 1 {
        1
    } else {
        CHUNK_TILES
    };
    let chunk_tiles = n_tiles.div_ceil(n_chunks).next_multiple_of(at_a_time);
    let mut n_chunks = 0;
    let layers: Vec<Layer<'_>> = calls
        .iter_mut()
        .map(|call| {
            let weight = call.weight.packed();
            let first_chunk = n_chunks;
            n_chunks += weight.n_tiles().div_ceil(chunk_tiles);
            Layer {
                weight,
                bias: call.bias.map(|bias| bias.as_slice()),
                out: SharedMut::new(call.out.as_mut_slice()),
                first_chunk,
            }
        })
        .collect();
    let activations = &*activations;
    let amx = amx.as_ref();
    cpu.pool.run(n_chunks, &|chunk, thread| {
        let after = layers.partition_point(|layer| layer.first_chunk <= chunk);
        let layer = &layers[after - 1];
        let first_tile = (chunk - layer.first_chunk) * chunk_tiles;
        let work = Chunk {
            layer,
            x,
            activations,
            n_rows,
            first_tile,
            end_tile: (first_tile + chunk_tiles).min(layer.weight.n_tiles()),
            next: Ahead::new(next, chunk, n_chunks),
            tiles: amx.filter(|amx| amx.unit.takes(layer.weight, n_rows)),
            thread,
        };
        work.run(cpu);
    });
}

/// A device's tiles, with the activations of a call in their order.
struct Tiles<'a> {
    unit: &'a Amx,
    activations: MutexGuard<'a, amx::Activations>,
}

impl<'a> Tiles<'a> {
    /// `None`: the device has no tiles. `quantized` are the rows if any of the layers is of integers.
    fn prepare(
        cpu: &'a Cpu,
        x: &[f32],
        n_rows: usize,
        calls: &[LinearCall<'_>],
        quantized: &Activations,
    ) -> Option<Self> {
        let unit = cpu.amx.as_ref()?;
        let mut activations = unit.activations();
        let taken = || {
            let weights = calls.iter().map(|call| call.weight.packed());
            weights.filter(|weight| unit.takes(weight, n_rows))
        };
        if taken().any(PackedLinear::is_native) {
            activations.gather(cpu, quantized, n_rows);
        }
        if taken().any(PackedLinear::takes_pairs) {
            activations.round(cpu, x, n_rows);
        }
        Some(Self { unit, activations })
    }
}

/// Some tiles of one layer, all rows.
struct Chunk<'a> {
    layer: &'a Layer<'a>,
    x: &'a [f32],
    activations: &'a Activations,
    n_rows: usize,
    first_tile: usize,
    end_tile: usize,
    next: Ahead<'a>,
    /// If the layer goes through such.
    tiles: Option<&'a Tiles<'a>>,
    thread: usize,
}

impl Chunk<'_> {
    /// Picks the kernel of the format and numerics.
    fn run(&self, cpu: &Cpu) {
        match self.layer.weight.ty {
            WeightType::F32 => self.walk(cpu, Dense::<F32>(PhantomData)),
            WeightType::F16 => self.walk(cpu, Dense::<F16>(PhantomData)),
            WeightType::BF16 => self.bf16(cpu),
            WeightType::Q4_0 => self.quantized::<Q4d>(cpu),
            WeightType::Q4_1 => self.quantized::<Q4dm>(cpu),
            WeightType::Q5_0 => self.quantized::<Q5d>(cpu),
            WeightType::Q5_1 => self.quantized::<Q5dm>(cpu),
            WeightType::Q8_0 => self.quantized::<Q8d>(cpu),
            WeightType::Q2_K => self.quantized::<Q2k>(cpu),
            WeightType::Q3_K => self.quantized::<Q3k>(cpu),
            WeightType::Q4_K => self.quantized::<Q4k>(cpu),
            WeightType::Q5_K => self.quantized::<Q5k>(cpu),
            WeightType::Q6_K => self.quantized::<Q6k>(cpu),
            WeightType::IQ4_NL => self.quantized::<Iq4Nl>(cpu),
        }
    }

    fn bf16(&self, cpu: &Cpu) {
        match self.tiles {
            Some(tiles) => self.in_tiles(tiles).pairs(tiles.unit),
            None if self.layer.weight.takes_pairs() => self.walk(cpu, Pairs),
            None => self.walk(cpu, Dense::<Bf16>(PhantomData)),
        }
    }

    fn quantized<Q: Format>(&self, cpu: &Cpu) {
        let weight = self.layer.weight;
        match (self.tiles, weight.numerics) {
            (Some(tiles), _) => (self.in_tiles(tiles)).integers::<Q>(tiles.unit, self.thread),
            (None, Numerics::Native) => self.walk(cpu, Native::<Q>::new(weight)),
            (None, Numerics::F32) => self.walk(cpu, Widened::<Q>::new(weight)),
        }
    }

    fn in_tiles<'b>(&'b self, tiles: &'b Tiles<'_>) -> amx::Chunk<'b> {
        amx::Chunk {
            weight: self.layer.weight,
            bias: self.layer.bias,
            out: &self.layer.out,
            activations: &tiles.activations,
            n_rows: self.n_rows,
            columns: self.first_tile..self.end_tile,
            next: self.next,
        }
    }

    fn walk(&self, cpu: &Cpu, blocks: impl Blocks) {
        cpu.isa.run(Walk {
            chunk: self,
            blocks,
            next: self.next,
        });
    }
}

/// Multiplies one block; what differs between formats and numerics.
trait Blocks {
    /// Whether it is a proof of correctness, which need not be fast: compiled for one block only.
    const PLAIN: bool = false;
    /// See [`Kernel::PAIRS`].
    const PAIRS: bool = false;
    /// Whether sums are of integers, group by group.
    const INTEGERS: bool = false;
    /// Whether making operands of weights costs so much that a block has more rows to share it.
    const COSTLY: bool = false;

    /// `sums[r][t]` plus row `at.row + r` times tile `at.tile + t`.
    fn block<S: Simd, const T: usize, const R: usize>(
        &self,
        s: S,
        chunk: &Chunk<'_>,
        at: Place,
        sums: [[S::F; T]; R],
    ) -> [[S::F; T]; R];
}

/// Where a block is.
struct Place {
    tile: usize,
    row: usize,
    /// As many as the block has, or fewer where [`Walk::takes_fewer`].
    n_rows: usize,
    /// Begins at a multiple of [`PART_INPUTS`].
    inputs: Range<usize>,
}

/// A chunk with its kernel.
struct Walk<'a, B: Blocks> {
    chunk: &'a Chunk<'a>,
    blocks: B,
    next: Ahead<'a>,
}

impl<B: Blocks> Kernel for Walk<'_, B> {
    const PAIRS: bool = B::PAIRS;
    const DOTS: bool = B::INTEGERS;

    /// As many rows at a time as stay near; for these, tiles outside, rows inside.
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let Chunk {
            n_rows,
            first_tile,
            end_tile,
            ..
        } = *self.chunk;
        if B::PLAIN || S::PLAIN {
            for tile in first_tile..end_tile {
                let next = self.rows::<S, 1, 4>(s, tile, 0..n_rows);
                self.rows::<S, 1, 1>(s, tile, next..n_rows);
            }
            return;
        }
        let n_in = self.chunk.layer.weight.n_in;
        // Whole blocks of three rows or four; those of integers where registers are few may have any number.
        let n_near = (NEAR_BYTES / (2 * n_in).max(1))
            .next_multiple_of(12)
            .max(12);
        let n_blocks = (end_tile - first_tile).div_ceil(CHUNK_TILES) * n_rows.div_ceil(4);
        self.next.n_at_once = self.next.n_lines.div_ceil(n_blocks.max(1));
        for first in (0..n_rows).step_by(n_near) {
            let rows = first..n_rows.min(first + n_near);
            if !Self::takes_fewer::<S>() || n_rows == 1 {
                self.tiles(s, rows);
                continue;
            }
            // Sums wait in memory between groups, and all rows of a block share what codes cost.
            for tile in first_tile..end_tile {
                self.rows::<S, 1, FEW_REGISTERS_ROWS>(s, tile, rows.clone());
            }
        }
    }
}

impl<B: Blocks> Walk<'_, B> {
    /// All tiles for some rows: weights stay near while rows pass. A block has four tiles, which
    /// are four streams of memory, and rows that make twelve sums or more (fewer only at the end):
    /// enough under way to hide the latency of each. Of costly weights it has two, and the sums of
    /// integers, each beside one in f32, leave registers for three rows. Where there are few
    /// registers, a block of dense weights has one tile and as many rows as these hold sums of.
    #[inline(always)]
    fn tiles<S: Simd>(&mut self, s: S, rows: Range<usize>) {
        let end_tile = self.chunk.end_tile;
        let mut tile = self.chunk.first_tile;
        while tile + CHUNK_TILES <= end_tile {
            let rows = rows.clone();
            let mut next = rows.start;
            if !S::WIDE && !B::INTEGERS {
                for tile in tile..tile + CHUNK_TILES {
                    next = self.rows::<S, 1, 5>(s, tile, rows.clone());
                    next = self.rows::<S, 1, 4>(s, tile, next..rows.end);
                }
            } else if S::WIDE && B::COSTLY {
                self.rows::<S, 2, 4>(s, tile, rows.clone());
                next = self.rows::<S, 2, 4>(s, tile + 2, rows.clone());
            } else if S::PAIRS && B::PAIRS {
                next = self.rows::<S, CHUNK_TILES, 4>(s, tile, rows.clone());
            } else if S::WIDE {
                next = self.rows::<S, CHUNK_TILES, 3>(s, tile, rows.clone());
            }
            let left = next..rows.end;
            match left.len() {
                3 if S::WIDE => self.rows::<S, CHUNK_TILES, 3>(s, tile, left),
                2 if S::WIDE => self.rows::<S, CHUNK_TILES, 2>(s, tile, left),
                _ => self.rows::<S, CHUNK_TILES, 1>(s, tile, left),
            };
            tile += CHUNK_TILES;
        }
        for tile in tile..end_tile {
            let mut next = rows.start;
            if !Self::takes_fewer::<S>() {
                next = self.rows::<S, 1, 4>(s, tile, rows.clone());
            }
            self.rows::<S, 1, 1>(s, tile, next..rows.end);
        }
    }
}

impl<'a, B: Blocks> Walk<'a, B> {
    /// Whether a block may have fewer rows than it has room for: its sums are in memory.
    fn takes_fewer<S: Simd>() -> bool {
        B::INTEGERS && !S::WIDE
    }

    /// Blocks of `R` of these rows as long as there are that many, or of fewer; the row after.
    #[inline(always)]
    fn rows<S: Simd, const T: usize, const R: usize>(
        &mut self,
        s: S,
        tile: usize,
        rows: Range<usize>,
    ) -> usize {
        let n_blocks = if Self::takes_fewer::<S>() {
            rows.len().div_ceil(R)
        } else {
            rows.len() / R
        };
        let end = rows.end.min(rows.start + n_blocks * R);
        let n_in = self.chunk.layer.weight.n_in;
        // Weights that only one block takes are better read as one stream, and those of few bits
        // stay near anyway.
        let in_parts = B::PAIRS && n_blocks > 1;
        let part = if in_parts { PART_INPUTS } else { n_in.max(1) };
        let own = self.after(tile + T, T);
        let mut own = Ahead::new(&own, 0, 1);
        // Weights of few bits, four tiles of them, come in while those before them are at work. A single
        // block has no time for that, and neither dense ones nor a single tile gain anything: the
        // machine sees where a stream goes.
        if S::WIDE && n_blocks > 1 && self.chunk.layer.weight.is_native() {
            own.n_at_once = own.n_lines.div_ceil(n_blocks * n_in.div_ceil(part));
        }
        let mut first = 0;
        loop {
            let inputs = first..n_in.min(first + part);
            for row in (rows.start..end).step_by(R) {
                self.next.bring();
                own.bring();
                let n_rows = if Self::takes_fewer::<S>() {
                    R.min(end - row)
                } else {
                    R
                };
                let at = Place {
                    tile,
                    row,
                    n_rows,
                    inputs: inputs.clone(),
                };
                self.part::<S, T, R>(s, at);
            }
            first = inputs.end;
            if first == n_in {
                return end;
            }
        }
    }

    /// Brings the outputs of a block forward by some inputs.
    #[inline(always)]
    fn part<S: Simd, const T: usize, const R: usize>(&self, s: S, at: Place) {
        let Place {
            tile, row, n_rows, ..
        } = at;
        let mut sums = [[s.zero(); T]; R];
        if at.inputs.start > 0 {
            for r in 0..n_rows {
                for t in 0..T {
                    sums[r][t] = s.load_part(self.out(row + r, tile + t));
                }
            }
        }
        let is_last = at.inputs.end == self.chunk.layer.weight.n_in;
        let sums = self.blocks.block::<S, T, R>(s, self.chunk, at, sums);
        for r in 0..n_rows {
            for t in 0..T {
                let out = self.out(row + r, tile + t);
                let sum = match self.chunk.layer.bias {
                    Some(bias) if is_last => s.add(
                        sums[r][t],
                        s.load_part(&bias[(tile + t) * TILE..][..out.len()]),
                    ),
                    _ => sums[r][t],
                };
                s.store_part(sum, out);
            }
        }
    }

    /// The memory of up to `n` tiles of the chunk from `tile` on.
    fn after(&self, tile: usize, n: usize) -> [&'a [u8]; 2] {
        let end = self.chunk.end_tile;
        let layer = self.chunk.layer;
        layer.weight.memory_of(tile.min(end)..(tile + n).min(end))
    }

    /// The outputs of a row that a tile has.
    #[inline(always)]
    fn out(&self, row: usize, tile: usize) -> &'a mut [f32] {
        let n_out = self.chunk.layer.weight.n_out;
        let first = tile * TILE;
        // SAFETY: each row of each tile belongs to one chunk, which borrows one at a time.
        unsafe {
            self.chunk
                .layer
                .out
                .part(row * n_out + first, TILE.min(n_out - first))
        }
    }
}

/// Dense weights that meet f32 activations.
struct Dense<D>(PhantomData<D>);

impl<D: DenseFormat> Blocks for Dense<D> {
    #[inline(always)]
    fn block<S: Simd, const T: usize, const R: usize>(
        &self,
        s: S,
        chunk: &Chunk<'_>,
        at: Place,
        sums: [[S::F; T]; R],
    ) -> [[S::F; T]; R] {
        let n_in = chunk.layer.weight.n_in;
        let tiles = chunk.layer.weight.dense_tiles(at.tile);
        let rows = std::array::from_fn(|r| &chunk.x[(at.row + r) * n_in..][..n_in]);
        dense::block::<S, D, T, R>(s, tiles, rows, at.inputs, sums)
    }
}

/// bf16 weights that meet bf16 activations.
struct Pairs;

impl Blocks for Pairs {
    const PAIRS: bool = true;

    #[inline(always)]
    fn block<S: Simd, const T: usize, const R: usize>(
        &self,
        s: S,
        chunk: &Chunk<'_>,
        at: Place,
        sums: [[S::F; T]; R],
    ) -> [[S::F; T]; R] {
        let tiles = chunk.layer.weight.dense_tiles(at.tile);
        let rows = std::array::from_fn(|r| chunk.activations.rounded_row(at.row + r));
        if S::PAIRS {
            dense::pairs_block::<S, T, R>(s, tiles, rows, at.inputs, sums)
        } else {
            dense::block::<S, Bf16, T, R>(s, tiles, rows, at.inputs, sums)
        }
    }
}

/// Defines the two ways to multiply with quantized weights.
macro_rules! quantized_blocks {
    ($name:ident, $plain:literal, $kernel:path, |$chunk:ident, $row:ident, $n_in:ident| $x:expr) => {
        struct $name<'a, Q: Format> {
            weight: &'a PackedLinear,
            format: PhantomData<Q>,
        }

        impl<'a, Q: Format> $name<'a, Q> {
            #[inline(always)]
            fn new(weight: &'a PackedLinear) -> Self {
                Self {
                    weight,
                    format: PhantomData,
                }
            }
        }

        impl<Q: Format> Blocks for $name<'_, Q> {
            const PLAIN: bool = $plain;
            const INTEGERS: bool = !$plain;
            const COSTLY: bool = Q::LAYOUT.high_bits > 0;

            #[inline(always)]
            fn block<S: Simd, const T: usize, const R: usize>(
                &self,
                s: S,
                $chunk: &Chunk<'_>,
                at: Place,
                sums: [[S::F; T]; R],
            ) -> [[S::F; T]; R] {
                let tiles: [TileBytes<'_>; T] =
                    std::array::from_fn(|t| self.weight.tile(Q::LAYOUT, at.tile + t));
                let $n_in = self.weight.n_in;
                let rows = std::array::from_fn(|r| {
                    let $row = at.row + r.min(at.n_rows - 1);
                    $x
                });
                let _ = $n_in;
                $kernel(s, tiles, (rows, at.n_rows), at.inputs, sums)
            }
        }
    };
}

quantized_blocks!(
    Native,
    false,
    quant::native_block::<S, Q, T, R>,
    |chunk, row, n_in| chunk.activations.row(row)
);
quantized_blocks!(
    Widened,
    true,
    quant::f32_block::<S, Q, T, R>,
    |chunk, row, n_in| &chunk.x[row * n_in..][..n_in]
);

/// Defines the formats that kernels are compiled for.
macro_rules! formats {
    ($($name:ident = $ty:ident),*) => {$(
        #[derive(Debug)]
        struct $name;
        impl Format for $name {
            const LAYOUT: Layout = Layout::of(WeightType::$ty);
        }
    )*};
}

formats!(
    Q4d = Q4_0,
    Q4dm = Q4_1,
    Q5d = Q5_0,
    Q5dm = Q5_1,
    Q8d = Q8_0,
    Q2k = Q2_K,
    Q3k = Q3_K,
    Q4k = Q4_K,
    Q5k = Q5_K,
    Q6k = Q6_K,
    Iq4Nl = IQ4_NL
);

const _: () = assert!(LANES == TILE, "a tile is one vector wide");
