//! Linear layers: from calls to chunks of tiles, from chunks to blocks of tiles by rows.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::sync::{Mutex, PoisonError};

use super::Cpu;
use super::activations::Activations;
use super::ahead::Ahead;
use super::dense::{self, Bf16, DenseFormat, F16, F32};
use super::packed::{Packed, PackedLinear};
use super::quant::{self, Format, TileBytes};
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::format::Layout;
use crate::format::layout::TILE;
use crate::memory::Plain;
use crate::{LinearCall, Numerics, WeightType};

/// Chunks that a region is cut into for each thread, so that a slow thread can be relieved.
const CHUNKS_PER_THREAD: usize = 8;
/// Tiles of a chunk are a multiple of this, the most that a block takes.
const CHUNK_TILES: usize = 4;

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
        activations.fill(&cpu.pool, cpu.isa, x, n_rows);
    }
    let n_tiles: usize = calls
        .iter()
        .map(|call| call.weight.packed().n_tiles())
        .sum();
    let n_chunks = cpu.pool.n_threads() * CHUNKS_PER_THREAD;
    let chunk_tiles = n_tiles.div_ceil(n_chunks).next_multiple_of(CHUNK_TILES);
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
    cpu.pool.run(n_chunks, &|chunk, _| {
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
        };
        work.run(cpu);
    });
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
}

impl Chunk<'_> {
    /// Picks the kernel of the format and numerics.
    fn run(&self, cpu: &Cpu) {
        let weight = self.layer.weight;
        match weight.ty {
            WeightType::F32 => self.walk(cpu, Dense::<F32>::new(weight)),
            WeightType::F16 => self.walk(cpu, Dense::<F16>::new(weight)),
            WeightType::BF16 => self.walk(cpu, Dense::<Bf16>::new(weight)),
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

    fn quantized<Q: Format>(&self, cpu: &Cpu) {
        match self.layer.weight.numerics {
            Numerics::Native => self.walk(cpu, Native::<Q>::new(self.layer.weight)),
            Numerics::F32 => self.walk(cpu, Widened::<Q>::new(self.layer.weight)),
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

    /// `out[r][t]`: row `first_row + r` times tile `first_tile + t`.
    fn block<S: Simd, const T: usize, const R: usize>(
        &self,
        s: S,
        chunk: &Chunk<'_>,
        first_tile: usize,
        first_row: usize,
    ) -> [[S::F; T]; R];
}

/// A chunk with its kernel.
struct Walk<'a, B: Blocks> {
    chunk: &'a Chunk<'a>,
    blocks: B,
    next: Ahead<'a>,
}

impl<B: Blocks> Kernel for Walk<'_, B> {
    /// Tiles outside, rows inside: weights stay near while rows pass. What rows are left of
    /// blocks of four takes four tiles at once: four streams of memory, and enough sums under
    /// way to hide the latency of each.
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let Chunk {
            n_rows,
            first_tile: mut tile,
            end_tile,
            ..
        } = *self.chunk;
        let n_blocks = (end_tile - tile).div_ceil(2) * n_rows.div_ceil(4);
        let n_lines = self.next.n_lines.div_ceil(n_blocks.max(1));
        self.next.n_at_once = n_lines;
        if B::PLAIN {
            for tile in tile..end_tile {
                let next = self.rows::<S, 1, 4>(s, tile, 0);
                self.rows::<S, 1, 1>(s, tile, next);
            }
            return;
        }
        while tile + CHUNK_TILES <= end_tile {
            if S::WIDE {
                self.rows::<S, 2, 4>(s, tile, 0);
                self.rows::<S, 2, 4>(s, tile + 2, 0);
            } else {
                for t in 0..CHUNK_TILES {
                    self.rows::<S, 1, 4>(s, tile + t, 0);
                }
            }
            let next = n_rows / 4 * 4;
            match n_rows - next {
                3 if S::WIDE => self.rows::<S, CHUNK_TILES, 3>(s, tile, next),
                2 if S::WIDE => self.rows::<S, CHUNK_TILES, 2>(s, tile, next),
                _ => self.rows::<S, CHUNK_TILES, 1>(s, tile, next),
            };
            tile += CHUNK_TILES;
        }
        for tile in tile..end_tile {
            let next = self.rows::<S, 1, 4>(s, tile, 0);
            self.rows::<S, 1, 1>(s, tile, next);
        }
    }
}

impl<'a, B: Blocks> Walk<'a, B> {
    /// Blocks of `R` rows from `first_row` on as long as there are that many; the row after.
    #[inline(always)]
    fn rows<S: Simd, const T: usize, const R: usize>(
        &mut self,
        s: S,
        tile: usize,
        first_row: usize,
    ) -> usize {
        let mut row = first_row;
        let own = self.after(tile + T, T);
        let mut own = Ahead::new(&own, 0, 1);
        // Weights of few bits come in while those before them are at work. A single block has no time
        // for that, and dense ones gain nothing: the machine sees where a stream goes.
        let n_blocks = (self.chunk.n_rows - row) / R;
        if n_blocks > 1 && self.chunk.layer.weight.is_native() {
            own.n_at_once = own.n_lines.div_ceil(n_blocks);
        }
        while row + R <= self.chunk.n_rows {
            self.next.bring();
            own.bring();
            let out = self.blocks.block::<S, T, R>(s, self.chunk, tile, row);
            for r in 0..R {
                for t in 0..T {
                    self.write(s, out[r][t], row + r, tile + t);
                }
            }
            row += R;
        }
        row
    }

    /// The memory of up to `n` tiles of the chunk from `tile` on.
    fn after(&self, tile: usize, n: usize) -> [&'a [u8]; 2] {
        let end = self.chunk.end_tile;
        let layer = self.chunk.layer;
        layer.weight.memory_of(tile.min(end)..(tile + n).min(end))
    }

    #[inline(always)]
    fn write<S: Simd>(&self, s: S, value: S::F, row: usize, tile: usize) {
        let layer = self.chunk.layer;
        let n_out = layer.weight.n_out;
        let first = tile * TILE;
        let n = TILE.min(n_out - first);
        let value = match layer.bias {
            Some(bias) => s.add(value, s.load_part(&bias[first..first + n])),
            None => value,
        };
        // SAFETY: each row of each tile belongs to one chunk and is borrowed only here.
        let out = unsafe { layer.out.part(row * n_out + first, n) };
        s.store_part(value, out);
    }
}

struct Dense<'a, D: DenseFormat> {
    packed: &'a [D::Packed],
    n_in: usize,
}

impl<'a, D: DenseFormat> Dense<'a, D> {
    #[inline(always)]
    fn new(weight: &'a PackedLinear) -> Self
    where
        D::Packed: Plain,
    {
        let Packed::Dense(pages) = &weight.packed else {
            unreachable!("dense types are packed densely")
        };
        Self {
            packed: pages.as_slice(),
            n_in: weight.n_in,
        }
    }
}

impl<D: DenseFormat> Blocks for Dense<'_, D> {
    #[inline(always)]
    fn block<S: Simd, const T: usize, const R: usize>(
        &self,
        s: S,
        chunk: &Chunk<'_>,
        first_tile: usize,
        first_row: usize,
    ) -> [[S::F; T]; R] {
        let steps = self.n_in.div_ceil(D::STEP);
        let tiles = std::array::from_fn(|t| &self.packed[(first_tile + t) * steps..][..steps]);
        let rows = std::array::from_fn(|r| &chunk.x[(first_row + r) * self.n_in..][..self.n_in]);
        dense::block::<S, D, T, R>(s, tiles, rows)
    }
}

/// Defines the two ways to multiply with quantized weights.
macro_rules! quantized_blocks {
    ($name:ident, $plain:literal, $kernel:path, |$chunk:ident, $row:ident, $n_in:ident| $x:expr) => {
        struct $name<'a, Q: Format> {
            weight: &'a PackedLinear,
            format: std::marker::PhantomData<Q>,
        }

        impl<'a, Q: Format> $name<'a, Q> {
            #[inline(always)]
            fn new(weight: &'a PackedLinear) -> Self {
                Self {
                    weight,
                    format: std::marker::PhantomData,
                }
            }
        }

        impl<Q: Format> Blocks for $name<'_, Q> {
            const PLAIN: bool = $plain;

            #[inline(always)]
            fn block<S: Simd, const T: usize, const R: usize>(
                &self,
                s: S,
                $chunk: &Chunk<'_>,
                first_tile: usize,
                first_row: usize,
            ) -> [[S::F; T]; R] {
                let tiles: [TileBytes<'_>; T] =
                    std::array::from_fn(|t| self.weight.tile(Q::LAYOUT, first_tile + t));
                let $n_in = self.weight.n_in;
                let rows = std::array::from_fn(|r| {
                    let $row = first_row + r;
                    $x
                });
                let _ = $n_in;
                $kernel(s, tiles, rows)
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
