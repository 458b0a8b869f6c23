//! Rotation, the paged cache and attention together, over ragged batches.

mod common;

use common::{Rng, assert_same, devices};
use kernels::{
    AttentionRow, Buffer, Device, KvCache, KvShape, KvType, PagedAttention, RopeAngles, RopeStyle,
    RopeWriteKv, reference,
};
use reference::{AttentionShape, Scoring};

#[derive(Clone, Copy, Debug)]
struct Case {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    rotary_dim: usize,
    style: RopeStyle,
    kv: KvType,
    window: Option<usize>,
    softcap: Option<f32>,
    /// Slopes and sinks for the heads.
    alibi: bool,
    sinks: bool,
}

const CASE: Case = Case {
    n_heads: 6,
    n_kv_heads: 2,
    head_dim: 64,
    block_size: 16,
    rotary_dim: 64,
    style: RopeStyle::Half,
    kv: KvType::F32,
    window: None,
    softcap: None,
    alibi: false,
    sinks: false,
};

/// The tokens of one sequence: queries, keys, values, angles.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    blocks: Vec<u32>,
    len: usize,
}

const N_BLOCKS: usize = 300;

impl Case {
    fn cache(&self, device: &Device) -> KvCache {
        let shape = KvShape {
            n_layers: 2,
            n_blocks: N_BLOCKS,
            block_size: self.block_size,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
        };
        KvCache::new(device, shape, self.kv).expect("memory for a small cache")
    }

    /// Sequences of these lengths, on blocks dealt out at random.
    fn sequences(&self, lens: &[usize]) -> Vec<Sequence> {
        let mut rng = Rng(41);
        let mut free: Vec<u32> = (0..N_BLOCKS as u32).collect();
        let half = self.rotary_dim / 2;
        lens.iter()
            .map(|&len| {
                let angles = rng.values(len * half);
                Sequence {
                    q: rng.values(len * self.n_heads * self.head_dim),
                    k: rng.values(len * self.n_kv_heads * self.head_dim),
                    v: rng.values(len * self.n_kv_heads * self.head_dim),
                    cos: angles.iter().map(|x| x.cos()).collect(),
                    sin: angles.iter().map(|x| x.sin()).collect(),
                    blocks: (0..len.div_ceil(self.block_size))
                        .map(|_| free.swap_remove(rng.below(free.len())))
                        .collect(),
                    len,
                }
            })
            .collect()
    }

    /// Runs steps; each is a list of (sequence, first position, positions). Gives what attention
    /// gave for each position of each sequence.
    fn run(&self, device: &Device, all: &[Sequence], steps: &[Vec<[usize; 3]>]) -> Vec<Vec<f32>> {
        let mut kv = self.cache(device);
        let width = self.n_heads * self.head_dim;
        let mut outs: Vec<Vec<f32>> = all.iter().map(|s| vec![0.0; s.len * width]).collect();
        for step in steps {
            let mut out = self.step(device, &mut kv, all, step);
            for &[i, start, n] in step {
                let rest = out.split_off(n * width);
                outs[i][start * width..(start + n) * width].copy_from_slice(&out);
                out = rest;
            }
        }
        outs
    }

    fn step(
        &self,
        device: &Device,
        kv: &mut KvCache,
        all: &[Sequence],
        step: &[[usize; 3]],
    ) -> Vec<f32> {
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        let (mut slots, mut rows) = (Vec::new(), Vec::new());
        for &[i, start, n] in step {
            let s = &all[i];
            let part = |x: &[f32], width: usize| x[start * width..(start + n) * width].to_vec();
            q.extend(part(&s.q, self.n_heads * self.head_dim));
            k.extend(part(&s.k, self.n_kv_heads * self.head_dim));
            v.extend(part(&s.v, self.n_kv_heads * self.head_dim));
            cos.extend(part(&s.cos, self.rotary_dim / 2));
            sin.extend(part(&s.sin, self.rotary_dim / 2));
            // What is behind the window is not there any more, for rows of one token.
            let behind = |window: usize| (start + 1).saturating_sub(window) / self.block_size;
            let gone = self.window.filter(|_| n == 1).map_or(0, behind);
            rows.push(AttentionRow {
                first_row: slots.len(),
                n_rows: n,
                start,
                first_block: gone,
                blocks: &s.blocks[gone..],
            });
            slots.extend((start..start + n).map(|position| {
                s.blocks[position / self.block_size] * self.block_size as u32
                    + (position % self.block_size) as u32
            }));
        }
        let mut q = Buffer::from_slice(device, &q);
        device.rope_write_kv(RopeWriteKv {
            q: &mut q,
            k: &Buffer::from_slice(device, &k),
            v: &Buffer::from_slice(device, &v),
            n_heads: self.n_heads,
            angles: RopeAngles {
                cos: &cos,
                sin: &sin,
                rotary_dim: self.rotary_dim,
                style: self.style,
            },
            slots: &slots,
            kv,
            layer: 1,
        });
        let mut out = Buffer::zeros(device, q.len());
        let scoring = self.scoring();
        let per_head = |values: Option<Vec<f32>>| values.map(|v| Buffer::from_slice(device, &v));
        device.paged_attention_into(PagedAttention {
            q: &q,
            kv,
            layer: 1,
            rows: &rows,
            n_heads: self.n_heads,
            scale: 0.3,
            window: self.window,
            softcap: self.softcap,
            alibi_slopes: per_head(scoring.alibi_slopes).as_ref(),
            sinks: per_head(scoring.sinks).as_ref(),
            out: &mut out,
        });
        out.read(0..out.len()).into_owned()
    }

    fn scoring(&self) -> Scoring {
        let per_head = |f: fn(f32) -> f32| (0..self.n_heads).map(|i| f(i as f32)).collect();
        Scoring {
            window: self.window,
            softcap: self.softcap,
            alibi_slopes: self.alibi.then(|| per_head(|head| 0.5 / (1.0 + head))),
            sinks: self.sinks.then(|| per_head(|head| 3.0 - head)),
        }
    }

    /// What the cache makes of the values of one head in one slot, from the definitions.
    fn narrow(&self, head: &[f64]) -> Vec<f32> {
        let largest = head.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let scaled = |most: f64, round: &dyn Fn(f64) -> f64| {
            let rounded = |x: &f64| (round(x * most / largest) * largest / most) as f32;
            head.iter().map(rounded).collect()
        };
        match self.kv {
            KvType::F32 => head.iter().map(|&x| x as f32).collect(),
            KvType::Bf16 => head
                .iter()
                .map(|&x| half::bf16::from_f32(x as f32).to_f32())
                .collect(),
            KvType::Int8 => scaled(127.0, &f64::round_ties_even),
            KvType::Fp8 => scaled(448.0, &|x| {
                // Steps of an eighth of the power of two below, and of 2^-9 at the least.
                let step = 2.0_f64.powf(x.abs().log2().floor().max(-6.0) - 3.0);
                (x / step).round_ties_even() * step
            }),
        }
    }

    /// What attention should give over what the cache holds, and how far each value may be from it.
    /// Scores of size 16 are rounded at 1e-6, and values are of size 4. A key that rounds the other
    /// way moves the result by about its last bit. Where weights are rounded to bf16, each is off by
    /// up to 2^-8 of itself, which moves a mean by as much of the mean distance from it, and that is
    /// at most the standard deviation.
    fn reference(&self, s: &Sequence) -> (Vec<f64>, Vec<f64>) {
        let angles = RopeAngles {
            cos: &s.cos,
            sin: &s.sin,
            rotary_dim: self.rotary_dim,
            style: self.style,
        };
        let narrow = |x: Vec<f64>| -> Vec<f32> {
            let heads = x.chunks_exact(self.head_dim);
            heads.flat_map(|head| self.narrow(head)).collect()
        };
        let rotated = |x: &[f32], n| reference::rope(x, n, self.head_dim, angles);
        let q: Vec<f32> = rotated(&s.q, self.n_heads)
            .iter()
            .map(|&x| match self.kv {
                KvType::Bf16 => half::bf16::from_f32(x as f32).to_f32(),
                _ => x as f32,
            })
            .collect();
        let k = narrow(rotated(&s.k, self.n_kv_heads));
        let v = narrow(s.v.iter().copied().map(f64::from).collect());
        let shape = AttentionShape {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            scale: 0.3,
        };
        let scoring = self.scoring();
        let out = reference::attention(&q, &k, &v, shape, &scoring);
        let mut bounds = vec![bound(self.kv); out.len()];
        if self.kv == KvType::Bf16 {
            let squares: Vec<f32> = v.iter().map(|v| v * v).collect();
            let squares = reference::attention(&q, &k, &squares, shape, &scoring);
            for ((bound, square), mean) in bounds.iter_mut().zip(squares).zip(&out) {
                *bound += 0.004 * (square - mean * mean).max(0.0).sqrt();
            }
        }
        (out, bounds)
    }
}

#[test]
fn ragged_attention_matches_the_reference_at_any_shape() {
    let mut cases = vec![CASE];
    for (n_heads, n_kv_heads) in [(1, 1), (8, 1), (4, 4), (10, 2)] {
        cases.push(Case {
            n_heads,
            n_kv_heads,
            ..CASE
        });
    }
    for (head_dim, rotary_dim) in [
        (8, 8),
        (9, 0),
        (16, 4),
        (24, 24),
        (33, 0),
        (80, 0),
        (128, 64),
    ] {
        cases.push(Case {
            head_dim,
            rotary_dim,
            ..CASE
        });
    }
    for block_size in [1, 3, 8, 24, 32] {
        cases.push(Case { block_size, ..CASE });
    }
    cases.push(Case {
        style: RopeStyle::Interleaved,
        rotary_dim: 32,
        ..CASE
    });
    for window in [1, 3, 8, 16, 17, 40, 75, 1000] {
        let window = Some(window);
        cases.push(Case { window, ..CASE });
    }
    cases.extend(parameters());
    let plain = cases.clone();
    for kv in [KvType::Bf16, KvType::Int8, KvType::Fp8] {
        cases.extend(plain.iter().map(|&case| Case { kv, ..case }));
    }
    for case in cases {
        let all = case.sequences(&[1, 20, 75]);
        let step = vec![[0, 0, 1], [1, 0, 20], [2, 0, 75]];
        let mut first: Option<Vec<Vec<f32>>> = None;
        let references: Vec<_> = all.iter().map(|s| case.reference(s)).collect();
        for device in devices() {
            let outs = case.run(&device, &all, std::slice::from_ref(&step));
            for (reference, out) in references.iter().zip(&outs) {
                assert_near(
                    out,
                    reference,
                    &format!("{case:?} on {}", device.describe()),
                );
            }
            let first = first.get_or_insert_with(|| outs.clone());
            for (out, first) in outs.iter().zip(first) {
                assert_same(out, first, "another instruction set or thread");
            }
        }
    }
}

/// See [`Case::reference`].
fn bound(kv: KvType) -> f64 {
    match kv {
        KvType::F32 => 1e-5,
        KvType::Bf16 | KvType::Int8 => 4e-3,
        KvType::Fp8 => 2e-2,
    }
}

/// Each value within its bound of what it should be.
fn assert_near(found: &[f32], (exact, bounds): &(Vec<f64>, Vec<f64>), what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (i, (found, (exact, bound))) in found.iter().zip(exact.iter().zip(bounds)).enumerate() {
        let error = (f64::from(*found) - exact).abs();
        assert!(error < *bound, "{what}: value {i} is {found}, not {exact}");
    }
}

/// Each parameter of the scores, and all at once.
fn parameters() -> Vec<Case> {
    let softcap = Some(2.5);
    let all = Case {
        window: Some(11),
        softcap,
        alibi: true,
        sinks: true,
        ..CASE
    };
    vec![
        Case { softcap, ..CASE },
        Case {
            alibi: true,
            ..CASE
        },
        Case {
            sinks: true,
            ..CASE
        },
        all,
    ]
}

#[test]
fn chunks_and_company_do_not_change_bits() {
    let mut shapes = vec![];
    for base in std::iter::once(CASE).chain(parameters()) {
        for window in [base.window, Some(5), Some(30)] {
            shapes.push(Case { window, ..base });
        }
    }
    for kv in [KvType::F32, KvType::Bf16, KvType::Int8, KvType::Fp8] {
        for (i, (n_heads, block_size)) in [(6, 16), (2, 5), (16, 32)]
            .into_iter()
            .cycle()
            .take(shapes.len())
            .enumerate()
        {
            let case = Case {
                n_heads,
                block_size,
                kv,
                ..shapes[i]
            };
            let all = case.sequences(&[70, 33, 9]);
            let whole = [vec![[0, 0, 70], [1, 0, 33], [2, 0, 9]]];
            // Alone and one by one; then in chunks beside each other.
            let alone: Vec<Vec<[usize; 3]>> = (0..3)
                .flat_map(|i| (0..all[i].len).map(move |at| vec![[i, at, 1]]))
                .collect();
            let chunks = [
                vec![[1, 0, 30], [2, 0, 1]],
                vec![[0, 0, 41], [1, 30, 1], [2, 1, 1]],
                vec![[0, 41, 29], [1, 31, 2], [2, 2, 7]],
            ];
            for device in devices() {
                let whole = case.run(&device, &all, &whole);
                let alone = case.run(&device, &all, &alone);
                let chunks = case.run(&device, &all, &chunks);
                for i in 0..3 {
                    assert_same(&alone[i], &whole[i], "alone");
                    assert_same(&chunks[i], &whole[i], "in chunks");
                }
            }
        }
    }
}

#[test]
fn long_contexts_are_put_together_alike() {
    let long = Case {
        n_heads: 3,
        n_kv_heads: 1,
        kv: KvType::Bf16,
        ..CASE
    };
    let cases = [
        long,
        // Blocks that spans cut.
        Case {
            block_size: 48,
            window: Some(300),
            ..long
        },
        // Some queries of a chunk see nothing of a span that others see.
        Case {
            window: Some(258),
            sinks: true,
            alibi: true,
            ..long
        },
        Case {
            kv: KvType::F32,
            n_heads: 5,
            n_kv_heads: 5,
            window: Some(40),
            ..long
        },
    ];
    for case in cases {
        let all = case.sequences(&[600, 270]);
        let whole = [vec![[0, 0, 600], [1, 0, 270]]];
        let chunks = [
            vec![[0, 0, 255]],
            vec![[0, 255, 1], [1, 0, 100]],
            vec![[0, 256, 1], [1, 100, 157]],
            vec![[0, 257, 255], [1, 257, 13]],
            vec![[0, 512, 1]],
            vec![[0, 513, 87]],
        ];
        let references: Vec<_> = all.iter().map(|s| case.reference(s)).collect();
        let mut first: Option<Vec<Vec<f32>>> = None;
        for device in devices() {
            let whole = case.run(&device, &all, &whole);
            let chunks = case.run(&device, &all, &chunks);
            for (reference, out) in references.iter().zip(&whole) {
                assert_near(
                    out,
                    reference,
                    &format!("{case:?} on {}", device.describe()),
                );
            }
            let first = first.get_or_insert_with(|| whole.clone());
            for i in 0..2 {
                assert_same(&chunks[i], &whole[i], "in chunks");
                assert_same(&whole[i], &first[i], "another instruction set or thread");
            }
        }
    }
}

#[test]
fn what_others_left_in_a_block_does_not_leak() {
    for (kv, block_size) in [
        (KvType::F32, 16),
        (KvType::Bf16, 16),
        (KvType::Bf16, 3),
        (KvType::Int8, 16),
    ] {
        let case = Case {
            kv,
            block_size,
            ..CASE
        };
        for device in devices() {
            leaves_no_trace(&case, &device);
        }
    }
}

fn leaves_no_trace(case: &Case, device: &Device) {
    let all = case.sequences(&[21]);
    let step = [[0, 0, 21]];
    let mut kv = case.cache(device);
    let clean = case.step(device, &mut kv, &all, &step);
    // The same blocks, full of what is not a number where the sequence has not written.
    let len = all[0].blocks.len() * case.block_size;
    let mut poison = case.sequences(&[len]);
    poison[0].blocks.clone_from(&all[0].blocks);
    poison[0].k.fill(f32::NAN);
    poison[0].v.fill(f32::NAN);
    case.step(device, &mut kv, &poison, &[[0, 0, len]]);
    assert_same(
        &case.step(device, &mut kv, &all, &step),
        &clean,
        "poison in whole",
    );
    // One by one, each beside what is not a number.
    case.step(device, &mut kv, &poison, &[[0, 0, len]]);
    let width = case.n_heads * case.head_dim;
    for (at, clean) in clean.chunks_exact(width).enumerate() {
        let out = case.step(device, &mut kv, &all, &[[0, at, 1]]);
        assert_same(&out, clean, "poison one by one");
    }

    case.step(device, &mut kv, &poison, &[[0, 0, len]]);
    device.clear_kv(&mut kv);
    let mut ahead = case.sequences(&[22]);
    ahead[0].blocks.clone_from(&all[0].blocks);
    let out = case.step(device, &mut kv, &ahead, &[[0, 20, 1]]);
    assert!(
        out.iter().all(|x| x.is_finite()),
        "the cache was not cleared"
    );
}

/// A value that is no number reaches those that see it, and neither those before it nor those whose
/// window is past it, though it is beside what they see.
#[test]
fn what_is_no_number_stays_with_those_who_see_it() {
    const LEN: usize = 75;
    let window = 8;
    for kv in [KvType::F32, KvType::Bf16, KvType::Fp8] {
        let case = Case {
            kv,
            window: Some(window),
            ..CASE
        };
        let whole = [vec![[0, 0, LEN]]];
        let alone: Vec<Vec<[usize; 3]>> = (0..LEN).map(|at| vec![[0, at, 1]]).collect();
        for device in devices() {
            let clean = case.run(&device, &case.sequences(&[LEN]), &whole).remove(0);
            for at in [20, 31, 63] {
                let mut poison = case.sequences(&[LEN]);
                let width = case.n_kv_heads * case.head_dim;
                poison[0].k[at * width..(at + 1) * width].fill(f32::NAN);
                poison[0].v[at * width..(at + 1) * width].fill(f32::NAN);
                for steps in [whole.as_slice(), &alone] {
                    let out = case.run(&device, &poison, steps).remove(0);
                    let width = case.n_heads * case.head_dim;
                    let (before, after) = (at * width, (at + window) * width);
                    assert_same(&out[..before], &clean[..before], "before");
                    assert_same(&out[after..], &clean[after..], "past");
                    assert!(out[before..after].iter().all(|x| x.is_nan()), "seen");
                }
            }
        }
    }
}

#[test]
fn a_cache_that_cannot_be_had_is_an_error() {
    let device = devices().remove(0);
    let mut shape = CASE.cache(&device).shape();
    shape.n_blocks = 1 << 40;
    assert!(KvCache::new(&device, shape, KvType::F32).is_err());
    shape.n_blocks = usize::MAX;
    assert!(KvCache::new(&device, shape, KvType::Bf16).is_err());
    shape.n_blocks = 10;
    assert_eq!(shape.bytes_per_block(KvType::Bf16), 2 * 2 * 16 * 2 * 64 * 2);
    for kv in [KvType::Int8, KvType::Fp8] {
        assert_eq!(shape.bytes_per_block(kv), 2 * 2 * 16 * 2 * (64 + 4));
    }
}

/// What eight bits cost, against keys and values as they came. Scores are up to 16 here, so that a
/// key's last bit tells.
#[test]
fn eight_bits_cost_what_they_are_said_to() {
    for (kv, most) in [
        (KvType::Bf16, 3e-3),
        (KvType::Int8, 1e-2),
        (KvType::Fp8, 6e-2),
    ] {
        let case = Case { kv, ..CASE };
        let all = case.sequences(&[75]);
        let exact = CASE.reference(&all[0]).0;
        let out = case.run(&devices()[0], &all, &[vec![[0, 0, 75]]]).remove(0);
        let errors = out
            .iter()
            .zip(&exact)
            .map(|(a, b)| (f64::from(*a) - b).abs());
        let mean = errors.sum::<f64>() / exact.len() as f64;
        assert!(mean < most, "{kv:?}: {mean} in the mean");
    }
}
