//! Causal attention of ragged rows over the paged cache.
//!
//! The context is cut into spans at fixed positions. Within a span, softmax has two passes: all
//! scores of a pair (row, query head) are kept, then exponentiated, then weigh the values in the
//! order of positions. What spans give is put together in their order, as in FlashAttention-2
//! (Dao, 2023). What one pair computes depends on its own context alone, not on its company.
//!
//! A kv head for some rows of one sequence is a part, and takes spans in turn; or, where there
//! are few parts, each span of a part is a task of its own (Flash-Decoding). Both give the same
//! bits. Cost follows the real length of the context.

mod merge;
mod room;
mod single;
mod span;
mod step;
mod tile;
mod weigh;

use std::sync::{Mutex, MutexGuard, PoisonError};

use self::merge::{finish, merge};
use self::room::Room;
use self::span::Attention;
use super::Cpu;
use super::shared::SharedMut;
use super::simd::{Kernel, Simd};
use crate::kv::{E4m3, KvElement, KvLayer, KvShape, KvType};
use crate::{AttentionRow, PagedAttention};

/// Positions of a span. Fixed: sums are cut here.
const SPAN: usize = 256;
/// About as many pairs (row, query head) go into a part: enough to make widening keys and values
/// cheap, few enough that their scores stay near.
const PART_PAIRS: usize = 96;
/// With fewer parts for each thread than this, spans are tasks.
const PARTS_PER_THREAD: usize = 8;

/// Memory that attention keeps from step to step.
#[derive(Debug)]
pub(crate) struct AttentionScratch {
    /// For each thread.
    threads: Vec<Mutex<ThreadScratch>>,
    step: Mutex<StepScratch>,
}

/// See [`Attention`] for the shapes.
#[derive(Debug, Default)]
struct ThreadScratch {
    tile: Room,
    q: Room,
    scores: Room,
    part: Room,
    total: Room,
}

#[derive(Debug, Default)]
struct StepScratch {
    parts: Vec<Part>,
    tasks: Vec<Task>,
    /// What spans gave, one after the other, where spans are tasks.
    partials: Room,
}

/// Rows `first..end` of a sequence, one kv head, and the spans that they see.
#[derive(Clone, Copy, Debug)]
struct Part {
    sequence: usize,
    first: usize,
    end: usize,
    kv_head: usize,
    first_span: usize,
    end_span: usize,
    /// Where what its spans give begins, if they are tasks.
    partials: usize,
}

/// Some spans of a part.
#[derive(Clone, Copy, Debug)]
struct Task {
    part: usize,
    first_span: usize,
    end_span: usize,
}

impl AttentionScratch {
    pub(crate) fn new(n_threads: usize) -> Self {
        Self {
            threads: (0..n_threads).map(|_| Mutex::default()).collect(),
            step: Mutex::default(),
        }
    }
}

/// A lock on scratch, whose contents never outlive a task.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See [`crate::Device::paged_attention_into`]; shapes are checked there.
pub(crate) fn paged_attention(cpu: &Cpu, op: PagedAttention<'_>) {
    match op.kv.ty() {
        KvType::Bf16 => attend::<u16>(cpu, op),
        KvType::F32 => attend::<f32>(cpu, op),
        KvType::Int8 => attend::<u8>(cpu, op),
        KvType::Fp8 => attend::<E4m3>(cpu, op),
    }
}

/// [`paged_attention`] over a cache of `E`.
fn attend<E: KvElement>(cpu: &Cpu, op: PagedAttention<'_>) {
    let shape = op.kv.shape();
    let mut scratch = lock(&cpu.attention_scratch.step);
    let StepScratch {
        parts,
        tasks,
        partials,
    } = &mut *scratch;
    let group = op.n_heads / shape.n_kv_heads;
    list_parts(op.rows, shape, group, op.window, parts);
    let is_split = parts.len() < PARTS_PER_THREAD * cpu.pool.n_threads()
        && parts.iter().any(|part| part.end_span > part.first_span + 1);
    let row_values = group * merge::width(shape.head_dim);
    let n_partials = list_tasks(parts, tasks, is_split, row_values);
    let op = Op {
        q: op.q.as_slice(),
        kv: op.kv.layer::<E>(op.layer),
        shape,
        rows: op.rows,
        n_heads: op.n_heads,
        scale: op.scale,
        window: op.window.unwrap_or(usize::MAX),
        softcap: op.softcap,
        slopes: op.alibi_slopes.map(crate::Buffer::as_slice),
        sinks: op.sinks.map(crate::Buffer::as_slice),
        row_values,
        partials: SharedMut::new(partials.of(n_partials)),
        out: SharedMut::new(op.out.as_mut_slice()),
    };
    cpu.pool.run(tasks.len(), &|task, thread| {
        let mut scratch = lock(&cpu.attention_scratch.threads[thread]);
        let task = tasks[task];
        op.run(cpu, parts[task.part], task, is_split, &mut scratch);
    });
    if is_split {
        cpu.for_parts(parts.len(), n_partials / parts.len(), &|range| {
            for &part in &parts[range] {
                op.join(cpu, part);
            }
        });
    }
}

/// What all tasks share.
struct Op<'a, E> {
    q: &'a [f32],
    kv: KvLayer<'a, E>,
    shape: KvShape,
    rows: &'a [AttentionRow<'a>],
    n_heads: usize,
    scale: f32,
    window: usize,
    softcap: Option<f32>,
    slopes: Option<&'a [f32]>,
    sinks: Option<&'a [f32]>,
    /// Values of what a span gives for the pairs of a row.
    row_values: usize,
    partials: SharedMut<'a, f32>,
    out: SharedMut<'a, f32>,
}

impl<E: KvElement> Op<'_, E> {
    fn attention(&self, part: Part) -> Attention<'_> {
        Attention {
            q: self.q,
            shape: self.shape,
            sequence: self.rows[part.sequence],
            first: part.first,
            end: part.end,
            kv_head: part.kv_head,
            n_heads: self.n_heads,
            group: self.n_heads / self.shape.n_kv_heads,
            scale: self.scale,
            window: self.window,
            softcap: self.softcap,
            slopes: self.slopes,
        }
    }

    fn run(&self, cpu: &Cpu, part: Part, task: Task, is_split: bool, scratch: &mut ThreadScratch) {
        let to = if is_split {
            let len = (part.end - part.first) * self.row_values;
            let at = part.partials + (task.first_span - part.first_span) * len;
            // SAFETY: each span of each part has its place, and one task.
            To::Partial(unsafe { self.partials.part(at, len) })
        } else {
            To::Output {
                sinks: self.sinks,
                out: &self.out,
            }
        };
        cpu.isa.run(RunSpans {
            attention: self.attention(part),
            kv: &self.kv,
            task,
            scratch,
            to,
        });
    }

    /// Puts together what the spans of a part gave.
    fn join(&self, cpu: &Cpu, part: Part) {
        let len = (part.end - part.first) * self.row_values;
        let n_spans = part.end_span - part.first_span;
        // SAFETY: parts do not overlap, and all their tasks have ended.
        let partials = unsafe { self.partials.part(part.partials, n_spans * len) };
        cpu.isa.run(Join {
            attention: self.attention(part),
            partials,
            sinks: self.sinks,
            out: &self.out,
        });
    }
}

/// Cuts sequences into parts, those with most to see first, so that the last to be claimed are
/// short.
fn list_parts(
    rows: &[AttentionRow<'_>],
    shape: KvShape,
    group: usize,
    window: Option<usize>,
    parts: &mut Vec<Part>,
) {
    parts.clear();
    let n_rows = (PART_PAIRS / group).max(1);
    for (sequence, row) in rows.iter().enumerate() {
        for chunk in (0..row.n_rows.div_ceil(n_rows)).rev() {
            let first = chunk * n_rows;
            let end = row.n_rows.min(first + n_rows);
            let first_seen = (row.start + first + 1).saturating_sub(window.unwrap_or(usize::MAX));
            parts.extend((0..shape.n_kv_heads).map(|kv_head| Part {
                sequence,
                first,
                end,
                kv_head,
                first_span: first_seen / SPAN,
                end_span: (row.start + end).div_ceil(SPAN),
                partials: 0,
            }));
        }
    }
}

/// Makes tasks of parts, or of their spans; gives the room that what spans give needs.
/// `row_values`: values that the pairs of one row take.
fn list_tasks(
    parts: &mut [Part],
    tasks: &mut Vec<Task>,
    is_split: bool,
    row_values: usize,
) -> usize {
    tasks.clear();
    let mut n_partials = 0;
    for (i, part) in parts.iter_mut().enumerate() {
        if !is_split {
            tasks.push(Task {
                part: i,
                first_span: part.first_span,
                end_span: part.end_span,
            });
            continue;
        }
        part.partials = n_partials;
        let spans = part.first_span..part.end_span;
        n_partials += spans.len() * (part.end - part.first) * row_values;
        tasks.extend(spans.map(|span| Task {
            part: i,
            first_span: span,
            end_span: span + 1,
        }));
    }
    n_partials
}

/// Spans of a part in turn.
struct RunSpans<'a, E> {
    attention: Attention<'a>,
    kv: &'a KvLayer<'a, E>,
    task: Task,
    scratch: &'a mut ThreadScratch,
    to: To<'a>,
}

/// Where the result of a task goes.
enum To<'a> {
    /// What its one span gives, to its place among the partials.
    Partial(&'a mut [f32]),
    Output {
        sinks: Option<&'a [f32]>,
        out: &'a SharedMut<'a, f32>,
    },
}

impl<E: KvElement> Kernel for RunSpans<'_, E> {
    const PAIRS: bool = E::BF16;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ThreadScratch {
            tile,
            q,
            scores,
            part,
            total,
        } = self.scratch;
        let attention = &self.attention;
        let (q, scores) = attention.prepare::<S, E>(s, q, scores);
        let head_dim = attention.shape.head_dim;
        let len = attention.n_pairs() * merge::width(head_dim);
        let total = total.of(len);
        for value in total.chunks_exact_mut(merge::width(head_dim)) {
            merge::clear(value);
        }
        let mut to = self.to;
        let is_partial = matches!(to, To::Partial(_));
        for span in self.task.first_span..self.task.end_span {
            let part = match &mut to {
                To::Partial(partial) => &mut **partial,
                To::Output { .. } => part.of(len),
            };
            attention.span(s, self.kv, span, q, scores, tile, part);
            if is_partial {
                return;
            }
            let parts = part.chunks_exact(merge::width(head_dim));
            for (total, part) in total.chunks_exact_mut(merge::width(head_dim)).zip(parts) {
                merge(s, total, part);
            }
        }
        if let To::Output { sinks, out } = to {
            write(s, attention, total, sinks, out);
        }
    }
}

/// Puts together what the spans of a part gave.
struct Join<'a> {
    attention: Attention<'a>,
    partials: &'a mut [f32],
    sinks: Option<&'a [f32]>,
    out: &'a SharedMut<'a, f32>,
}

impl Kernel for Join<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = merge::width(self.attention.shape.head_dim);
        let len = self.attention.n_pairs() * width;
        let (total, later) = self.partials.split_at_mut(len);
        for part in later.chunks_exact(len) {
            let parts = part.chunks_exact(width);
            for (total, part) in total.chunks_exact_mut(width).zip(parts) {
                merge(s, total, part);
            }
        }
        write(s, &self.attention, total, self.sinks, self.out);
    }
}

/// Writes what pairs see over all spans.
#[inline(always)]
fn write<S: Simd>(
    s: S,
    attention: &Attention<'_>,
    total: &[f32],
    sinks: Option<&[f32]>,
    out: &SharedMut<'_, f32>,
) {
    let head_dim = attention.shape.head_dim;
    for (pair, total) in total.chunks_exact(merge::width(head_dim)).enumerate() {
        let (at, head) = attention.place(pair);
        let sink = sinks.map(|sinks| sinks[head]);
        // SAFETY: each pair belongs to one part, and is written once.
        finish(s, total, sink, unsafe { out.part(at, head_dim) });
    }
}
