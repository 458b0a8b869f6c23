//! Attention over the paged cache.

use kernels::cuda::{
    self, Attention, AttentionRows, DevicePtr, KvScales, KvStorage, Scoring as OnDevice,
    SequenceRows,
};
use kernels::reference::{self, AttentionShape, Scoring};

use crate::common::{Rng, assert_same, error};
use crate::gpu::{CAPABILITIES, Gpu};
use crate::kv::{Coded, coded};

#[derive(Clone, Copy, Debug)]
struct Case {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    storage: KvStorage,
    window: Option<usize>,
    softcap: Option<f32>,
    alibi: bool,
    sinks: bool,
}

const CASE: Case = Case {
    n_heads: 6,
    n_kv_heads: 2,
    head_dim: 64,
    block_size: 16,
    storage: KvStorage::Bf16,
    window: None,
    softcap: None,
    alibi: false,
    sinks: false,
};

const SCALE: f32 = 0.11;

/// One sequence: all its queries, keys and values; what the cache holds of keys and values.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Of each position and head.
    keys: Vec<Coded>,
    values: Vec<Coded>,
}

/// Rows of a sequence: its number, the first position, how many.
type Rows = [usize; 3];

impl Case {
    fn sequences(&self, lens: &[usize]) -> Vec<Sequence> {
        let mut rng = Rng(self.head_dim as u64);
        let n_kv = self.n_kv_heads * self.head_dim;
        let of_cache = |x: Vec<f32>| -> Vec<Coded> {
            let heads = x.chunks(self.head_dim);
            heads.map(|head| coded(self.storage, head)).collect()
        };
        let meant = |coded: &[Coded]| coded.iter().flat_map(|c| c.values.clone()).collect();
        lens.iter()
            .map(|&len| {
                let q = rng.values(len * self.n_heads * self.head_dim);
                let keys = of_cache(rng.values(len * n_kv));
                let values = of_cache(rng.values(len * n_kv));
                Sequence {
                    q,
                    k: meant(&keys),
                    v: meant(&values),
                    keys,
                    values,
                }
            })
            .collect()
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

    /// Puts positions into blocks dealt out backwards. What no position filled, and blocks that no
    /// row sees, stay unwritten.
    fn cache(&self, all: &[Sequence], rows: &[Rows]) -> Cache {
        let n_bytes = coded(self.storage, &[1.0]).bytes.len();
        let Self {
            block_size,
            n_kv_heads,
            head_dim,
            ..
        } = *self;
        let n_blocks: usize = rows
            .iter()
            .map(|r| (r[1] + r[2]).div_ceil(block_size))
            .sum();
        let mut cache = Cache {
            written: Vec::new(),
            n_slots: n_blocks * n_kv_heads * block_size,
            head_bytes: head_dim * n_bytes,
            has_scales: self.storage.has_scales(),
            tables: Vec::new(),
            sequences: Vec::new(),
        };
        let (mut block, mut first_row) = (n_blocks, 0);
        for &[i, start, n] in rows {
            let first = (start + 1).saturating_sub(self.window.unwrap_or(usize::MAX));
            let dropped = first / block_size;
            cache.sequences.push(SequenceRows {
                first_row: first_row as u32,
                n_rows: n as u32,
                start: start as u32,
                table: cache.tables.len() as i32 - dropped as i32,
            });
            first_row += n;
            for position in dropped * block_size..start + n {
                if position % block_size == 0 {
                    block -= 1;
                    cache.tables.push(block as u32);
                }
                for head in 0..n_kv_heads {
                    let from = position * n_kv_heads + head;
                    let slot = (block * n_kv_heads + head) * block_size + position % block_size;
                    let (key, value) = (&all[i].keys[from], &all[i].values[from]);
                    cache.written.push((slot, key.clone(), value.clone()));
                }
            }
        }
        cache
    }

    fn run(&self, gpu: &mut Gpu, all: &[Sequence], rows: &[Rows]) -> Vec<Vec<f32>> {
        let cache = self.cache(all, rows);
        let width = self.n_heads * self.head_dim;
        let part = |r: &Rows| all[r[0]].q[r[1] * width..(r[1] + r[2]) * width].to_vec();
        let q: Vec<f32> = rows.iter().flat_map(part).collect();
        let (keys, values, scales) = cache.upload(gpu);
        let sequences: Vec<u8> = cache
            .sequences
            .iter()
            .flat_map(|s| s.fields().padded(4))
            .collect();
        let host = self.scoring();
        let mut per_head = |x: Option<Vec<f32>>| x.map_or(DevicePtr::NULL, |x| gpu.upload(&x));
        let scoring = OnDevice {
            scale: SCALE,
            softcap: self.softcap,
            window: self.window,
            alibi_slopes: per_head(host.alibi_slopes),
            sinks: per_head(host.sinks),
        };
        let at = Placed {
            q: gpu.upload(&q),
            keys,
            values,
            scales,
            sequences: gpu.upload(&sequences),
            tables: gpu.upload(&cache.tables),
            out: gpu.alloc(q.len() * 4),
            scoring,
        };
        if self.storage == KvStorage::Bf16 && cuda::has_head_dim(self.head_dim) {
            self.tensor(gpu, &cache, &at);
        } else {
            self.by_rows(gpu, rows, &at);
        }
        let mut out: Vec<f32> = gpu.download(at.out, q.len());
        let mut outs = Vec::new();
        for &[_, _, n] in rows {
            let rest = out.split_off(n * width);
            outs.push(out);
            out = rest;
        }
        outs
    }

    fn tensor(&self, gpu: &mut Gpu, cache: &Cache, at: &Placed) {
        let plan = cuda::plan(
            &cache.sequences,
            self.n_heads / self.n_kv_heads,
            self.window,
        );
        let items = plan.item_bytes();
        let combines = plan.combine_bytes();
        let n = plan.n_parts * self.n_kv_heads;
        let op = Attention {
            q: at.q,
            keys: at.keys,
            values: at.values,
            sequences: at.sequences,
            tables: at.tables,
            items: gpu.upload(&items),
            out: at.out,
            part_max: gpu.alloc(n * 4),
            part_sum: gpu.alloc(n * 4),
            part_out: gpu.alloc(n * self.head_dim * 4),
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            block_size: self.block_size,
            scoring: at.scoring,
        };
        let counters = gpu.run(&cuda::paged_attention(&op, plan.items.len()));
        assert!(
            counters.wavefront_ratio() < 1.25,
            "{self:?}: {}",
            counters.wavefront_ratio()
        );
        assert!(counters.mma > 0 || !gpu.is_simulated());
        let combines = gpu.upload(&combines);
        gpu.run(&cuda::combine(&op, combines, plan.combines.len()));
    }

    fn by_rows(&self, gpu: &mut Gpu, rows: &[Rows], at: &Placed) {
        let of = rows
            .iter()
            .enumerate()
            .flat_map(|(i, r)| vec![i as u32; r[2]]);
        let of: Vec<u32> = of.collect();
        let op = AttentionRows {
            q: at.q,
            keys: at.keys,
            values: at.values,
            scales: at.scales,
            storage: self.storage,
            sequences: at.sequences,
            sequence_of: gpu.upload(&of),
            tables: at.tables,
            out: at.out,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            block_size: self.block_size,
            scoring: at.scoring,
        };
        gpu.run(&cuda::row_attention(&op, of.len()));
    }

    fn check(&self, gpu: &mut Gpu, all: &[Sequence], rows: &[Rows]) -> Vec<Vec<f32>> {
        let outs = self.run(gpu, all, rows);
        let width = self.n_heads * self.head_dim;
        let kv_width = self.n_kv_heads * self.head_dim;
        let tensor = self.storage == KvStorage::Bf16 && cuda::has_head_dim(self.head_dim);
        let shape = AttentionShape {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            scale: SCALE,
        };
        for (&[i, start, n], out) in rows.iter().zip(&outs) {
            let (s, end) = (&all[i], start + n);
            let round = |&x: &f32| {
                if tensor {
                    half::bf16::from_f32(x).to_f32()
                } else {
                    x
                }
            };
            let q: Vec<f32> = s.q[start * width..end * width].iter().map(round).collect();
            let (k, v) = (&s.k[..end * kv_width], &s.v[..end * kv_width]);
            let exact = reference::attention(&q, k, v, shape, &self.scoring());
            // Weights are rounded to bf16 (2^-9) against values of size 4.
            let bound = if tensor { 1.6e-2 } else { 2e-5 };
            let worst = error(out, &exact);
            assert!(worst < bound, "{self:?}, rows {start}..{end}: {worst}");
        }
        outs
    }
}

/// Keys and values and where they go.
struct Cache {
    written: Vec<(usize, Coded, Coded)>,
    /// Times kv heads.
    n_slots: usize,
    head_bytes: usize,
    has_scales: bool,
    tables: Vec<u32>,
    sequences: Vec<SequenceRows>,
}

impl Cache {
    fn upload(&self, gpu: &mut Gpu) -> (DevicePtr, DevicePtr, KvScales) {
        let n_bytes = self.n_slots * self.head_bytes;
        let (keys, values) = (gpu.alloc(n_bytes), gpu.alloc(n_bytes));
        let mut scales = KvScales::default();
        if self.has_scales {
            scales.keys = gpu.alloc(self.n_slots * 4);
            scales.values = gpu.alloc(self.n_slots * 4);
        }
        for (slot, key, value) in &self.written {
            gpu.write(keys.offset(slot * self.head_bytes), &key.bytes);
            gpu.write(values.offset(slot * self.head_bytes), &value.bytes);
            if self.has_scales {
                gpu.write(scales.keys.offset(slot * 4), &key.scale.to_le_bytes());
                gpu.write(scales.values.offset(slot * 4), &value.scale.to_le_bytes());
            }
        }
        (keys, values, scales)
    }
}

struct Placed {
    q: DevicePtr,
    keys: DevicePtr,
    values: DevicePtr,
    scales: KvScales,
    sequences: DevicePtr,
    tables: DevicePtr,
    out: DevicePtr,
    scoring: OnDevice,
}

/// Each parameter of the scores, and all at once.
fn parameters() -> Vec<Case> {
    let softcap = Some(2.5);
    let mut cases = vec![
        Case { softcap, ..CASE },
        Case {
            alibi: true,
            ..CASE
        },
        Case {
            sinks: true,
            ..CASE
        },
    ];
    for window in [1, 17, 40, 1000] {
        cases.push(Case {
            window: Some(window),
            ..CASE
        });
    }
    cases.push(Case {
        window: Some(11),
        softcap,
        alibi: true,
        sinks: true,
        ..CASE
    });
    cases
}

const RAGGED: [Rows; 4] = [[0, 0, 1], [1, 0, 20], [2, 40, 35], [2, 74, 1]];

#[test]
fn tensor_cores_match_at_any_shape() {
    let mut cases = parameters();
    for (n_heads, n_kv_heads) in [(1, 1), (8, 1), (2, 2), (32, 2)] {
        cases.push(Case {
            n_heads,
            n_kv_heads,
            ..CASE
        });
    }
    for head_dim in [80, 96, 128, 256] {
        cases.push(Case {
            head_dim,
            n_heads: 4,
            window: Some(50),
            sinks: true,
            ..CASE
        });
    }
    for block_size in [1, 24, 32] {
        cases.push(Case { block_size, ..CASE });
    }
    for case in cases {
        let all = case.sequences(&[1, 20, 75]);
        case.check(&mut Gpu::new(), &all, &RAGGED);
    }
}

#[test]
fn rows_match_with_any_cache() {
    for capability in CAPABILITIES {
        for (i, case) in parameters().into_iter().enumerate() {
            let storages = [
                KvStorage::F32,
                KvStorage::Fp8,
                KvStorage::Bf16,
                KvStorage::Int8,
            ];
            let storage = storages[i % 4];
            let head_dim = [8, 24, 192, 576, 64][i % 5];
            let case = Case {
                storage,
                head_dim,
                n_heads: 2,
                n_kv_heads: 1 + i % 2,
                ..case
            };
            let all = case.sequences(&[1, 20, 75]);
            case.check(
                &mut Gpu::of(capability),
                &all,
                &[[0, 0, 1], [1, 17, 3], [2, 73, 2]],
            );
        }
    }
}

/// Caches of 8 bits whose query heads share what is read of a kv head, four at most a block.
#[test]
fn heads_over_8_bits_match() {
    let heads = [(2, 1), (6, 1), (8, 2), (3, 3), (10, 2)];
    let mut cases = parameters();
    cases.extend([1, 24, 32].map(|block_size| Case { block_size, ..CASE }));
    for (i, case) in cases.into_iter().enumerate() {
        for storage in [KvStorage::Int8, KvStorage::Fp8] {
            let (n_heads, n_kv_heads) = heads[i % heads.len()];
            let case = Case {
                storage,
                head_dim: [64, 128, 256][i % 3],
                n_heads,
                n_kv_heads,
                ..case
            };
            let all = case.sequences(&[1, 20, 75, 150]);
            let rows = [[0, 0, 1], [1, 17, 3], [2, 73, 2], [3, 149, 1]];
            case.check(&mut Gpu::new(), &all, &rows);
        }
    }
}

#[test]
fn splits_chunks_and_company_do_not_change_bits() {
    let long = Case {
        n_heads: 4,
        n_kv_heads: 2,
        block_size: 32,
        ..CASE
    };
    let cases = [
        long,
        Case {
            window: Some(600),
            ..long
        },
        Case {
            sinks: true,
            alibi: true,
            softcap: Some(20.0),
            ..long
        },
    ];
    for case in cases {
        let all = case.sequences(&[1100, 30]);
        // A chunk that walks its splits, and single rows that are spread over blocks.
        let chunk = case.check(&mut Gpu::new(), &all, &[[0, 1050, 50]]);
        let rows = [[1, 0, 30], [0, 1050, 1], [0, 1099, 1]];
        let single = case.check(&mut Gpu::new(), &all, &rows);
        let width = case.n_heads * case.head_dim;
        assert_same(&single[1], &chunk[0][..width], "first row");
        assert_same(&single[2], &chunk[0][49 * width..], "last row");
    }
    for (storage, head_dim, window) in [
        (KvStorage::F32, 24, None),
        (KvStorage::Bf16, 24, None),
        (KvStorage::Int8, 24, None),
        (KvStorage::Int8, 128, None),
        (KvStorage::Fp8, 256, Some(77)),
    ] {
        let case = Case {
            storage,
            head_dim,
            window,
            ..CASE
        };
        let all = case.sequences(&[150]);
        let chunk = case.check(&mut Gpu::new(), &all, &[[0, 140, 10]]);
        let single = case.check(&mut Gpu::new(), &all, &[[0, 149, 1]]);
        assert_same(&single[0], &chunk[0][9 * 6 * head_dim..], "last row");
    }
    assert!(all_lens_end(&long));
}

/// The plan leaves out what a window hides, and covers every packed row once.
fn all_lens_end(case: &Case) -> bool {
    let group = case.n_heads / case.n_kv_heads;
    let rows = |start, n_rows| SequenceRows {
        first_row: 0,
        n_rows,
        start,
        table: 0,
    };
    let plan = cuda::plan(&[rows(5000, 1)], group, Some(700));
    let splits: Vec<u32> = plan.items.iter().map(|i| i.first_split).collect();
    assert_eq!(splits, [8, 9]);
    let plan = cuda::plan(&[rows(0, 100), rows(9, 3)], group, None);
    let firsts: Vec<u32> = plan.items.iter().map(|i| i.first_packed).collect();
    firsts == [0, 64, 128, 192, 0] && plan.combines.is_empty()
}
