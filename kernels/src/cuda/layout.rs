//! Weights as the kernels take them.

use crate::format::{self, Layout, layout};
use crate::{PackError, WeightSource, WeightType};

/// Inputs of a chunk of dense 16-bit weights.
const CHUNK: usize = 32;

/// Bytes of a row that stay together.
const PART: usize = 16;

/// A packed weight matrix, to be copied to the device as it is.
#[derive(Clone, Debug)]
pub struct PackedWeights {
    pub ty: WeightType,
    pub n_out: usize,
    pub n_in: usize,
    /// Block formats: bit planes (`format/layout.rs`, the same bytes as on the CPU).
    /// 16-bit formats: `[tile][chunk][16][32]`, the four parts of 16 bytes of a row `r` exchanged:
    /// part `p` lies at `p ^ (r / 2 % 4)`, as tensor cores read it from shared memory without
    /// conflicts of banks. f32: `[tile][n_in][16]`.
    pub weight: Vec<u8>,
    /// Block formats only.
    pub scales: Vec<u8>,
}

impl PackedWeights {
    /// Chunks or groups of 32 inputs of a row.
    pub fn n_chunks(&self) -> usize {
        self.n_in.div_ceil(CHUNK)
    }
}

/// Packs a weight in tiles of 16 output columns.
///
/// # Errors
/// When the source's bytes are not of its shape.
pub fn pack(source: &WeightSource<'_>) -> Result<PackedWeights, PackError> {
    source.check()?;
    let &WeightSource {
        ty, n_out, n_in, ..
    } = source;
    let row_bytes = n_in / ty.block_elements() * ty.block_bytes();
    let n_tiles = n_out.div_ceil(layout::TILE);
    let mut packed = PackedWeights {
        ty,
        n_out,
        n_in,
        weight: Vec::new(),
        scales: Vec::new(),
    };
    if row_bytes == 0 {
        return Ok(packed);
    }
    for rows in source.bytes.chunks(layout::TILE * row_bytes) {
        match ty {
            WeightType::F32 => pack_f32(rows, n_in, &mut packed.weight),
            WeightType::F16 | WeightType::BF16 => pack_16(rows, n_in, &mut packed.weight),
            _ => pack_blocks(ty, rows, n_in, row_bytes, &mut packed),
        }
    }
    debug_assert_eq!(packed.weight.len() % n_tiles.max(1), 0);
    Ok(packed)
}

fn pack_blocks(
    ty: WeightType,
    rows: &[u8],
    n_in: usize,
    row_bytes: usize,
    packed: &mut PackedWeights,
) {
    let layout = Layout::of(ty);
    let n_groups = n_in / layout::GROUP;
    let mut lines = vec![[0; layout::LINE]; n_groups * layout.n_lines()];
    let mut scales = vec![0; layout.tile_scale_bytes(n_groups)];
    format::pack(ty, rows, row_bytes, &mut lines, &mut scales);
    packed.weight.extend(lines.as_flattened());
    packed.scales.extend(scales);
}

fn pack_f32(rows: &[u8], n_in: usize, out: &mut Vec<u8>) {
    let first = out.len();
    out.resize(first + n_in * layout::TILE * 4, 0);
    for (column, row) in rows.chunks_exact(n_in * 4).enumerate() {
        for (k, value) in row.chunks_exact(4).enumerate() {
            let at = first + (k * layout::TILE + column) * 4;
            out[at..at + 4].copy_from_slice(value);
        }
    }
}

fn pack_16(rows: &[u8], n_in: usize, out: &mut Vec<u8>) {
    let first = out.len();
    let chunk_bytes = layout::TILE * CHUNK * 2;
    out.resize(first + n_in.div_ceil(CHUNK) * chunk_bytes, 0);
    for (column, row) in rows.chunks_exact(n_in * 2).enumerate() {
        for (chunk, values) in row.chunks(CHUNK * 2).enumerate() {
            let at = first + chunk * chunk_bytes + column * CHUNK * 2;
            for (part, values) in values.chunks(PART).enumerate() {
                let at = at + (part ^ (column / 2 % 4)) * PART;
                out[at..at + values.len()].copy_from_slice(values);
            }
        }
    }
}
