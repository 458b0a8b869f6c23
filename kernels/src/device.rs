//! The machine that ops run on.

use crate::{Buffer, KvCache, Linear, LinearCall, PagedAttention, RopeWriteKv};

/// Instruction sets with versions of their own, from the plainest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    Scalar,
    Neon,
    Avx2,
    Avx512,
}

/// How to set up the CPU back end.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads that work on a step, the caller's among them; `None`: as many as this process
    /// may use.
    pub n_threads: Option<usize>,
    /// Use this instruction set instead of the best one (tests).
    pub isa: Option<Isa>,
}

/// A handle to a device; clones share it.
#[derive(Clone, Debug)]
pub struct Device {}

impl Device {
    pub fn cpu(_options: CpuOptions) -> Self {
        unimplemented!()
    }

    /// For people: "CPU, 2 threads, AVX-512 VNNI".
    pub fn describe(&self) -> String {
        unimplemented!()
    }

    /// `out[i] = table[tokens[i]]`, `out`: `[tokens.len(), table.n_in()]`.
    pub fn embed_into(&self, _table: &Linear, _tokens: &[u32], _out: &mut Buffer) {
        unimplemented!()
    }

    /// RMSNorm of each row: `out = x / sqrt(mean(x^2) + eps) * weight`.
    /// `x`, `out`: `[n_rows, weight.len()]`.
    pub fn rms_norm_into(
        &self,
        _x: &Buffer,
        _weight: &Buffer,
        _eps: f32,
        _n_rows: usize,
        _out: &mut Buffer,
    ) {
        unimplemented!()
    }

    /// `residual += x`, then `out = rms_norm(residual)`; all `[n_rows, weight.len()]`.
    pub fn add_rms_norm_into(
        &self,
        _residual: &mut Buffer,
        _x: &Buffer,
        _weight: &Buffer,
        _eps: f32,
        _n_rows: usize,
        _out: &mut Buffer,
    ) {
        unimplemented!()
    }

    /// Several linear layers of one input in one parallel region: for each call
    /// `out = x W^T + bias`, `x`: `[n_rows, n_in]`, `out`: `[n_rows, n_out]`.
    pub fn linear_into(&self, _x: &Buffer, _n_rows: usize, _calls: &mut [LinearCall<'_>]) {
        unimplemented!()
    }

    /// Rotates queries in place, rotates keys, and writes keys and values to their slots.
    pub fn rope_write_kv(&self, _op: RopeWriteKv<'_>) {
        unimplemented!()
    }

    /// Causal attention of ragged rows over the paged cache.
    pub fn paged_attention_into(&self, _op: PagedAttention<'_>) {
        unimplemented!()
    }

    /// `out = silu(gate) * up`, elementwise over the first `len` values.
    pub fn silu_mul_into(&self, _gate: &Buffer, _up: &Buffer, _len: usize, _out: &mut Buffer) {
        unimplemented!()
    }

    /// `out[i] = x[rows[i]]`, rows of `width` values.
    pub fn gather_rows_into(&self, _x: &Buffer, _width: usize, _rows: &[u32], _out: &mut Buffer) {
        unimplemented!()
    }

    /// Zeroes a cache's memory (a new run of the engine).
    pub fn clear_kv(&self, _kv: &mut KvCache) {
        unimplemented!()
    }
}
