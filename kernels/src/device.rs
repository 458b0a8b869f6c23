//! The machine that ops run on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cpu::{self, Cpu};
use crate::{
    Activation, Buffer, KvCache, Linear, LinearCall, LinearDelta, Norm, OutOfMemory,
    PagedAttention, Peak, RopeWriteKv, Routes, Routing, RowGroups, StridedCopy,
};

/// Instruction sets with versions of their own, from the plainest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: every machine.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// NEON with dot products (Armv8.2).
    Neon,
}

impl Isa {
    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            match self {
                Self::Scalar => true,
                Self::Avx2 => avx2,
                Self::Avx512 => {
                    avx2 && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512vnni")
                }
                Self::Neon => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        match self {
            Self::Scalar => true,
            Self::Avx2 | Self::Avx512 => false,
            Self::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Self::Scalar
        }
    }

    /// What this machine has, plainest first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512, Self::Neon]
            .into_iter()
            .filter(|isa| isa.is_available())
    }

    /// The widest that this machine has.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512 VNNI",
            Self::Neon => "NEON",
        })
    }
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
pub struct Device {
    backend: Arc<Backend>,
}

/// What does the work. Ops check their shapes in the methods of [`Device`], once for all.
#[derive(Debug)]
enum Backend {
    Cpu(Cpu),
}

impl Device {
    /// # Panics
    /// When `options` ask for zero threads or for an instruction set that is not
    /// [available](Isa::is_available).
    pub fn cpu(options: CpuOptions) -> Self {
        Self {
            backend: Arc::new(Backend::Cpu(Cpu::new(options))),
        }
    }

    /// For people: "CPU, 2 threads, AVX-512 VNNI".
    pub fn describe(&self) -> String {
        let Backend::Cpu(cpu) = &*self.backend;
        cpu.describe()
    }

    /// Measures for about three times `time` what this device can do at best; for benchmarks.
    ///
    /// # Errors
    /// When there is no memory to stream.
    pub fn peak(&self, time: Duration) -> Result<Peak, OutOfMemory> {
        let Backend::Cpu(cpu) = &*self.backend;
        cpu::peak::measure(cpu, time)
    }

    pub(crate) fn as_cpu(&self) -> &Cpu {
        let Backend::Cpu(cpu) = &*self.backend;
        cpu
    }

    /// `out[i] = table[tokens[i]]`, `out`: `[tokens.len(), table.n_in()]`.
    pub fn embed_into(&self, table: &Linear, tokens: &[u32], out: &mut Buffer) {
        let n_out = table.n_out();
        assert!(
            tokens.iter().all(|&token| (token as usize) < n_out),
            "a token is not in the table of {n_out} rows"
        );
        let out = first_mut(out, tokens.len() * table.n_in(), "out");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::embed(cpu, table.packed(), tokens, out),
        }
    }

    /// Norms each row; `x`, `out`: `[n_rows, norm.weight.len()]`.
    pub fn norm_into(&self, x: &Buffer, norm: Norm<'_>, n_rows: usize, out: &mut Buffer) {
        let len = n_rows * check_norm(norm);
        let (x, out) = (first(x, len, "x"), first_mut(out, len, "out"));
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::norm::norm(cpu, x, norm, out),
        }
    }

    /// Norms each row where it is: `x` is `[n_rows, norm.weight.len()]`.
    pub fn norm_in_place(&self, x: &mut Buffer, norm: Norm<'_>, n_rows: usize) {
        let len = n_rows * check_norm(norm);
        let x = first_mut(x, len, "x");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::norm::norm_in_place(cpu, x, norm),
        }
    }

    /// `residual += scale * x`, then `out = norm(residual)`; all `[n_rows, norm.weight.len()]`.
    pub fn add_norm_into(
        &self,
        residual: &mut Buffer,
        x: &Buffer,
        scale: f32,
        norm: Norm<'_>,
        n_rows: usize,
        out: &mut Buffer,
    ) {
        let len = n_rows * check_norm(norm);
        let residual = first_mut(residual, len, "residual");
        let (x, out) = (first(x, len, "x"), first_mut(out, len, "out"));
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::norm::add_norm(cpu, residual, x, scale, norm, out),
        }
    }

    /// Several linear layers of one input in one parallel region: for each call
    /// `out = x W^T + bias`, `x`: `[n_rows, n_in]`, `out`: `[n_rows, n_out]`.
    pub fn linear_into(&self, x: &Buffer, n_rows: usize, calls: &mut [LinearCall<'_>]) {
        self.linear_before(x, n_rows, calls, &[]);
    }

    /// [`Self::linear_into`] and then [`Self::add_deltas`], whose matrices come from memory while
    /// the layers are computed.
    pub fn linear_with_deltas_into(
        &self,
        x: &Buffer,
        groups: &RowGroups,
        deltas: &[Option<&LinearDelta>],
        calls: &mut [LinearCall<'_>],
    ) {
        let used = deltas.iter().enumerate().filter_map(|(group, delta)| {
            let delta = delta.filter(|_| !groups.rows(group).is_empty())?;
            Some(delta.parts.iter().map(|(part, _)| part.packed().bytes()))
        });
        let next: Vec<&[u8]> = used.flatten().filter(|bytes| !bytes.is_empty()).collect();
        self.linear_before(x, groups.n_rows(), calls, &next);
        self.add_deltas(x, groups, deltas, calls);
    }

    /// [`Self::linear_into`], after which `next` is read.
    fn linear_before(
        &self,
        x: &Buffer,
        n_rows: usize,
        calls: &mut [LinearCall<'_>],
        next: &[&[u8]],
    ) {
        let Some(n_in) = calls.first().map(|call| call.weight.n_in()) else {
            return;
        };
        for call in calls.iter() {
            assert_eq!(
                call.weight.n_in(),
                n_in,
                "layers of one input differ in n_in"
            );
            let n_out = call.weight.n_out();
            assert!(call.out.len() >= n_rows * n_out, "out is too short");
            assert!(
                call.bias.is_none_or(|bias| bias.len() == n_out),
                "a bias has as many values as the layer has outputs"
            );
        }
        let x = first(x, n_rows * n_in, "x");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::linear::linear_into(cpu, x, n_rows, calls, next),
        }
    }

    /// What adapters add to linear layers after [`Self::linear_into`] of the same `x` and
    /// `calls`. For each row of each group `g` that has a delta, and each output `i`:
    /// `y = out_i[row]`; `y = y * scale + shift` (each step rounded, each only if it is there)
    /// for the entries of [`LinearDelta::outputs`] of `i`, in order; then for each part in order
    /// and each of its targets of output `i`, `y += column_scale * (B (weight * scales * (A x)))`,
    /// `A`, `B` and `scales` restricted to the ranks of the target. Other rows stay as they are.
    pub fn add_deltas(
        &self,
        x: &Buffer,
        groups: &RowGroups,
        deltas: &[Option<&LinearDelta>],
        calls: &mut [LinearCall<'_>],
    ) {
        let Some(n_in) = calls.first().map(|call| call.weight.n_in()) else {
            return;
        };
        assert_eq!(deltas.len(), groups.n_groups(), "a place for each group");
        for call in calls.iter() {
            assert_eq!(
                call.weight.n_in(),
                n_in,
                "layers of one input differ in n_in"
            );
            let len = groups.n_rows() * call.weight.n_out();
            assert!(call.out.len() >= len, "out is too short");
        }
        let has = |output: usize, n_out: usize| {
            calls
                .get(output)
                .is_some_and(|call| call.weight.n_out() == n_out)
        };
        for delta in deltas.iter().flatten() {
            for (part, _) in &delta.parts {
                assert_eq!(part.n_in(), n_in, "a part takes another input");
                assert!(
                    part.outputs().all(|(output, n_out)| has(output, n_out)),
                    "no such output"
                );
            }
            for output in &delta.outputs {
                let buffers = [&output.scale, &output.shift];
                let mut buffers = buffers.into_iter().flatten();
                assert!(
                    buffers.all(|buffer| has(output.output, buffer.len())),
                    "no such output"
                );
            }
        }
        let x = first(x, groups.n_rows() * n_in, "x");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::low_rank::add_deltas(cpu, x, groups, deltas, calls),
        }
    }

    /// Rotates queries in place, rotates keys, and writes keys and values to their slots.
    pub fn rope_write_kv(&self, op: RopeWriteKv<'_>) {
        let shape = op.kv.shape();
        let n_rows = op.slots.len();
        let half = op.angles.rotary_dim / 2;
        assert!(op.angles.rotary_dim.is_multiple_of(2), "pairs are rotated");
        assert!(
            2 * half <= shape.head_dim,
            "more is rotated than a head has"
        );
        assert!(op.angles.cos.len() >= n_rows * half, "too few cosines");
        assert!(op.angles.sin.len() >= n_rows * half, "too few sines");
        assert!(op.layer < shape.n_layers, "no such layer");
        let kv_len = n_rows * shape.n_kv_heads * shape.head_dim;
        first(op.q, n_rows * op.n_heads * shape.head_dim, "q");
        first(op.k, kv_len, "k");
        first(op.v, kv_len, "v");
        let n_slots = shape.n_blocks * shape.block_size;
        assert!(
            op.slots.iter().all(|&slot| (slot as usize) < n_slots),
            "a slot is not in the cache of {n_slots}"
        );
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::rope::rope_write_kv(cpu, op),
        }
    }

    /// Causal attention of ragged rows over the paged cache. Rows of `out` that are in no
    /// sequence stay as they are.
    pub fn paged_attention_into(&self, op: PagedAttention<'_>) {
        let shape = op.kv.shape();
        assert!(op.layer < shape.n_layers, "no such layer");
        assert!(
            op.n_heads.is_multiple_of(shape.n_kv_heads),
            "query heads share kv heads evenly"
        );
        assert!(op.window != Some(0), "a query sees itself");
        for per_head in [op.alibi_slopes, op.sinks].into_iter().flatten() {
            assert!(per_head.len() >= op.n_heads, "a value for each head");
        }
        let mut ends = 0;
        for rows in op.rows {
            // Ascending, so that no two sequences write one row.
            assert!(rows.first_row >= ends, "rows of sequences overlap");
            ends = rows.first_row + rows.n_rows;
            let n_blocks = (rows.start + rows.n_rows).div_ceil(shape.block_size);
            let n_gone = rows.first_block;
            let first_seen = (rows.start + 1).saturating_sub(op.window.unwrap_or(usize::MAX));
            assert!(
                n_gone * shape.block_size <= first_seen,
                "a block that is seen is gone"
            );
            let n_blocks = n_blocks - n_gone;
            assert!(rows.blocks.len() >= n_blocks, "a block table is too short");
            assert!(
                rows.blocks[..n_blocks]
                    .iter()
                    .all(|&block| (block as usize) < shape.n_blocks),
                "a block is not in the cache of {}",
                shape.n_blocks
            );
        }
        first(op.q, ends * op.n_heads * shape.head_dim, "q");
        first(op.out, ends * op.n_heads * shape.head_dim, "out");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::attention::paged_attention(cpu, op),
        }
    }

    /// `out = activation(gate) * up`, elementwise over the first `len` values.
    pub fn gate_into(
        &self,
        activation: Activation,
        gate: &Buffer,
        up: &Buffer,
        len: usize,
        out: &mut Buffer,
    ) {
        let (gate, up) = (first(gate, len, "gate"), first(up, len, "up"));
        let out = first_mut(out, len, "out");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::activate::gate(cpu, activation, gate, up, out),
        }
    }

    /// `x = activation(x)`, elementwise over the first `len` values.
    ///
    /// # Panics
    /// For an activation that is a gate only.
    pub fn activate(&self, activation: Activation, x: &mut Buffer, len: usize) {
        assert!(
            !matches!(activation, Activation::ClampedSwish { .. }),
            "a gate needs something to gate"
        );
        let x = first_mut(x, len, "x");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::activate::activate(cpu, activation, x),
        }
    }

    /// `out = x`, the first `len` values.
    pub fn copy(&self, x: &Buffer, len: usize, out: &mut Buffer) {
        let (x, out) = (first(x, len, "x"), first_mut(out, len, "out"));
        match &*self.backend {
            Backend::Cpu(_) => out.copy_from_slice(x),
        }
    }

    /// Sets the first `len` values.
    pub fn fill(&self, x: &mut Buffer, value: f32, len: usize) {
        let x = first_mut(x, len, "x");
        match &*self.backend {
            Backend::Cpu(_) => x.fill(value),
        }
    }

    /// `out += scale * x`, elementwise over the first `len` values.
    pub fn add_scaled(&self, out: &mut Buffer, x: &Buffer, scale: f32, len: usize) {
        let (out, x) = (first_mut(out, len, "out"), first(x, len, "x"));
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::add_scaled(cpu, out, x, scale),
        }
    }

    /// `x = scale * x` or, with a cap, `cap * tanh(scale * x / cap)`, over the first `len` values.
    pub fn scale_softcap(&self, x: &mut Buffer, scale: f32, cap: Option<f32>, len: usize) {
        let x = first_mut(x, len, "x");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::scale_softcap(cpu, x, scale, cap),
        }
    }

    /// Limits the first `len` values to `-limit..=limit`.
    pub fn clamp(&self, x: &mut Buffer, limit: f32, len: usize) {
        let x = first_mut(x, len, "x");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::clamp(cpu, x, limit),
        }
    }

    /// `out[row] += sigmoid(gate[row]) * x[row]`; `gate`: `[n_rows]`, rows of `width` values.
    pub fn add_gated_rows(
        &self,
        x: &Buffer,
        gate: &Buffer,
        width: usize,
        n_rows: usize,
        out: &mut Buffer,
    ) {
        let (x, gate) = (first(x, n_rows * width, "x"), first(gate, n_rows, "gate"));
        let out = first_mut(out, n_rows * width, "out");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::add_gated_rows(cpu, x, gate, out),
        }
    }

    /// Copies pieces of rows: piece `i / repeat` of `from` to piece `i` of `to`.
    pub fn strided_copy(&self, op: StridedCopy<'_>) {
        let within = |offset: usize, stride: usize| op.len > 0 && offset + op.len <= stride;
        assert!(op.repeat > 0, "a piece goes somewhere");
        assert!(
            within(op.from_offset, op.from_stride),
            "a piece leaves its stride"
        );
        assert!(
            within(op.to_offset, op.to_stride),
            "a piece leaves its stride"
        );
        first(op.from, op.n.div_ceil(op.repeat) * op.from_stride, "from");
        first(op.to, op.n * op.to_stride, "to");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::strided_copy(cpu, op),
        }
    }

    /// Chooses experts for each row. `logits`: `[n_rows, n_experts]`; `bias`: `[n_experts]`,
    /// added to the scores for the choice, not for the weights.
    pub fn route_into(
        &self,
        logits: &Buffer,
        bias: Option<&Buffer>,
        n_rows: usize,
        routing: &Routing,
        routes: &mut Routes,
    ) {
        let n_experts = routing.n_experts;
        assert!(
            (1..=n_experts).contains(&routing.n_used),
            "no such number of experts"
        );
        if let Some(groups) = routing.groups {
            assert!(
                n_experts.is_multiple_of(groups.n_groups),
                "groups are equal"
            );
            let n_allowed = n_experts / groups.n_groups * groups.n_used;
            assert!(
                (routing.n_used..=n_experts).contains(&n_allowed),
                "too few groups"
            );
        }
        let logits = first(logits, n_rows * n_experts, "logits");
        let bias = bias.map(|bias| first(bias, n_experts, "bias"));
        match &*self.backend {
            Backend::Cpu(_) => cpu::experts::route(logits, bias, routing, routes),
        }
    }

    /// `out[rows[i].0] += rows[i].1 * x[i]`, rows of `width` values.
    ///
    /// # Panics
    /// When rows do not ascend.
    pub fn scatter_add_rows(
        &self,
        x: &Buffer,
        width: usize,
        rows: &[(u32, f32)],
        out: &mut Buffer,
    ) {
        assert!(rows.is_sorted_by(|a, b| a.0 < b.0), "rows ascend");
        let n_rows = rows.last().map_or(0, |(row, _)| *row as usize + 1);
        let (x, out) = (
            first(x, rows.len() * width, "x"),
            first_mut(out, n_rows * width, "out"),
        );
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::experts::scatter_add(cpu, x, width, rows, out),
        }
    }

    /// `out[i] = x[rows[i]]`, rows of `width` values.
    pub fn gather_rows_into(&self, x: &Buffer, width: usize, rows: &[u32], out: &mut Buffer) {
        assert!(
            rows.iter()
                .all(|&row| (row as usize + 1) * width <= x.len()),
            "a row is not in x"
        );
        let out = first_mut(out, rows.len() * width, "out");
        match &*self.backend {
            Backend::Cpu(cpu) => {
                cpu::elementwise::gather_rows(cpu, x.as_slice(), width, rows, out);
            }
        }
    }

    /// `out[rows[i]] = x[i]`, rows of `width` values, ascending.
    pub fn scatter_rows(&self, x: &Buffer, width: usize, rows: &[u32], out: &mut Buffer) {
        assert!(rows.is_sorted_by(|a, b| a < b), "rows ascend");
        let ends = rows.last().map_or(0, |&row| row as usize + 1);
        let x = first(x, rows.len() * width, "x");
        let out = first_mut(out, ends * width, "out");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::scatter_rows(cpu, x, width, rows, out),
        }
    }

    /// Zeroes a cache's memory (a new run of the engine).
    pub fn clear_kv(&self, kv: &mut KvCache) {
        match &*self.backend {
            Backend::Cpu(_) => kv.clear(),
        }
    }
}

/// The width of a norm.
fn check_norm(norm: Norm<'_>) -> usize {
    let width = norm.weight.len();
    assert!(width > 0, "a norm of no values");
    assert!(
        norm.bias.is_none_or(|bias| bias.len() == width),
        "a bias is as long as the weight"
    );
    width
}

/// The first `len` values of a buffer that may be larger than this step needs.
fn first<'a>(buffer: &'a Buffer, len: usize, name: &str) -> &'a [f32] {
    let found = buffer.len();
    assert!(found >= len, "{name} holds {found} values, needs {len}");
    &buffer.as_slice()[..len]
}

/// As [`first`], to be written.
fn first_mut<'a>(buffer: &'a mut Buffer, len: usize, name: &str) -> &'a mut [f32] {
    let found = buffer.len();
    assert!(found >= len, "{name} holds {found} values, needs {len}");
    &mut buffer.as_mut_slice()[..len]
}
