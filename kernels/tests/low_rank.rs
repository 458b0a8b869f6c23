//! What adapters add to linear layers.

mod common;

use std::sync::Arc;

use common::{DENSE, Rng, assert_same, devices, error};
use kernels::{
    Buffer, Device, Linear, LinearCall, LinearDelta, LowRank, LowRankError, LowRankSource,
    LowRankTarget, Numerics, OutputDelta, RowGroups, WeightSource, WeightType, dequantize,
    reference,
};

/// One adapter beside two layers, on the host.
struct Part {
    source: LowRankSource<'static>,
    weight: f32,
}

/// What a group of rows gets.
#[derive(Default)]
struct Delta {
    parts: Vec<Part>,
    /// Of output 1.
    scale: Option<Vec<f32>>,
    shift: Option<Vec<f32>>,
}

fn widen(source: &WeightSource<'_>) -> Vec<f32> {
    let mut values = vec![0.0; source.n_out * source.n_in];
    dequantize(source.ty, &source.bytes, &mut values);
    values
}

/// `ranks`: of each output; one that is shared begins at zero.
fn part(rng: &mut Rng, ty: WeightType, n_in: usize, n_outs: [usize; 2], ranks: [usize; 2]) -> Part {
    let rank = ranks[0] + ranks[1];
    let target = |rng: &mut Rng, output: usize, first_rank: usize| LowRankTarget {
        output,
        n_out: n_outs[output],
        first_rank,
        rank: ranks[output],
        b: rng.weights(ty, n_outs[output], ranks[output]).bytes,
        column_scale: (rng.below(3) == 0).then(|| rng.values(n_outs[output])),
    };
    let mut targets = Vec::new();
    if ranks[0] > 0 {
        targets.push(target(rng, 0, 0));
    }
    if ranks[1] > 0 {
        targets.push(target(rng, 1, ranks[0]));
    }
    Part {
        source: LowRankSource {
            ty,
            n_in,
            a: rng.weights(ty, rank, n_in).bytes,
            scales: rng.values(rank),
            targets,
        },
        weight: rng.value(),
    }
}

/// Five groups: one adapter, none, a stack of three types, one that only scales and shifts, and
/// one of high rank.
fn deltas(rng: &mut Rng, n_in: usize, n_outs: [usize; 2]) -> Vec<Option<Delta>> {
    let stack = DENSE.map(|ty| {
        let ranks = [1 + rng.below(5), 1 + rng.below(9)];
        part(rng, ty, n_in, n_outs, ranks)
    });
    vec![
        Some(Delta {
            parts: vec![part(rng, WeightType::BF16, n_in, n_outs, [8, 3])],
            ..Delta::default()
        }),
        None,
        Some(Delta {
            parts: stack.into(),
            scale: Some(rng.values(n_outs[1])),
            shift: Some(rng.values(n_outs[1])),
        }),
        Some(Delta {
            parts: Vec::new(),
            scale: None,
            shift: Some(rng.values(n_outs[1])),
        }),
        Some(Delta {
            parts: vec![part(rng, WeightType::F32, n_in, n_outs, [0, 64])],
            ..Delta::default()
        }),
    ]
}

fn pack(device: &Device, delta: &Delta) -> LinearDelta {
    let has_outputs = delta.scale.is_some() || delta.shift.is_some();
    let buffer = |values: &Vec<f32>| Buffer::from_slice(device, values);
    let outputs = has_outputs.then(|| OutputDelta {
        output: 1,
        scale: delta.scale.as_ref().map(buffer),
        shift: delta.shift.as_ref().map(buffer),
    });
    let parts = delta.parts.iter().map(|part| {
        let sources = std::slice::from_ref(&part.source);
        let packed = LowRank::pack(device, sources).expect("sizes fit").remove(0);
        (Arc::new(packed), part.weight)
    });
    LinearDelta {
        outputs: outputs.into_iter().collect(),
        parts: parts.collect(),
    }
}

/// Two layers, rows of both before, and what becomes of them.
struct World {
    n_in: usize,
    deltas: Vec<Option<Delta>>,
    layers: [WeightSource<'static>; 2],
}

impl World {
    fn new(rng: &mut Rng, n_in: usize, n_outs: [usize; 2]) -> Self {
        Self {
            n_in,
            deltas: deltas(rng, n_in, n_outs),
            layers: n_outs.map(|n_out| rng.weights(WeightType::F32, n_out, n_in)),
        }
    }

    /// `before`: of both outputs, `[n_rows, n_out]` each.
    fn run(
        &self,
        device: &Device,
        x: &[f32],
        before: &[Vec<f32>; 2],
        groups: &[Option<usize>],
    ) -> [Vec<f32>; 2] {
        let packed: Vec<Option<LinearDelta>> = self
            .deltas
            .iter()
            .map(|delta| delta.as_ref().map(|delta| pack(device, delta)))
            .collect();
        let borrowed: Vec<Option<&LinearDelta>> = packed.iter().map(Option::as_ref).collect();
        let mut rows = RowGroups::default();
        rows.fill(self.deltas.len(), groups.iter().copied());
        let layers = self
            .layers
            .each_ref()
            .map(|source| Linear::pack(device, source, Numerics::F32).expect("sizes fit"));
        let mut outs = before.each_ref().map(|y| Buffer::from_slice(device, y));
        let mut calls: Vec<LinearCall<'_>> = layers
            .iter()
            .zip(&mut outs)
            .map(|(weight, out)| LinearCall {
                weight,
                bias: None,
                out,
            })
            .collect();
        device.add_deltas(&Buffer::from_slice(device, x), &rows, &borrowed, &mut calls);
        outs.map(|out| out.read(0..out.len()).into_owned())
    }

    /// One row of one output, in f64.
    fn exact(&self, x: &[f32], before: &[f32], group: Option<usize>, output: usize) -> Vec<f64> {
        let mut y: Vec<f64> = before.iter().map(|&y| f64::from(y)).collect();
        let Some(delta) = group.and_then(|group| self.deltas[group].as_ref()) else {
            return y;
        };
        for (i, y) in y.iter_mut().enumerate().filter(|_| output == 1) {
            *y *= delta
                .scale
                .as_ref()
                .map_or(1.0, |scale| f64::from(scale[i]));
            *y += delta
                .shift
                .as_ref()
                .map_or(0.0, |shift| f64::from(shift[i]));
        }
        for part in &delta.parts {
            let source = &part.source;
            let values = |n_out, n_in, bytes: &std::borrow::Cow<'static, [u8]>| {
                widen(&WeightSource {
                    ty: source.ty,
                    n_out,
                    n_in,
                    bytes: bytes.clone(),
                })
            };
            let a = values(source.scales.len(), self.n_in, &source.a);
            for target in source.targets.iter().filter(|t| t.output == output) {
                let ranks = target.first_rank..target.first_rank + target.rank;
                let a = &a[ranks.start * self.n_in..ranks.end * self.n_in];
                let b = values(target.n_out, target.rank, &target.b);
                let scale = target.column_scale.as_deref();
                let matrices = (a, &source.scales[ranks], &b[..]);
                reference::add_low_rank(&mut y, x, matrices, scale, part.weight);
            }
        }
        y
    }
}

#[test]
fn every_mix_of_groups_is_exact_and_rows_do_not_see_each_other() {
    let mut first: Option<Vec<Vec<f32>>> = None;
    for device in devices() {
        let mut rng = Rng(5);
        let mut all = Vec::new();
        for (n_in, n_outs, n_rows) in [
            (576, [576, 192], 16),
            (33, [130, 7], 5),
            (16, [64, 65], 1),
            (7, [1, 16], 3),
            (160, [64, 100], 150),
        ] {
            let rng = &mut rng;
            let world = World::new(rng, n_in, n_outs);
            let groups: Vec<Option<usize>> = (0..n_rows)
                .map(|_| Some(rng.below(6)).filter(|group| *group < 5))
                .collect();
            let x = rng.values(n_rows * n_in);
            let before = n_outs.map(|n_out| rng.values(n_rows * n_out));
            let found = world.run(&device, &x, &before, &groups);
            for row in 0..n_rows {
                let x = &x[row * n_in..][..n_in];
                let row_of = |all: &[f32], n_out: usize| all[row * n_out..][..n_out].to_vec();
                let own = [0, 1].map(|i| row_of(&before[i], n_outs[i]));
                let alone = world.run(&device, x, &own, &groups[row..=row]);
                for output in 0..2 {
                    let found = row_of(&found[output], n_outs[output]);
                    let exact = world.exact(x, &own[output], groups[row], output);
                    let size = exact.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
                    let distance = error(&found, &exact) / size;
                    assert!(distance < 1e-5, "row {row}, output {output}: {distance}");
                    assert_same(&found, &alone[output], "a row alone");
                }
            }
            all.extend(found);
        }
        // Instruction sets and threads agree bit for bit.
        match &first {
            None => first = Some(all),
            Some(first) => {
                for (found, expected) in all.iter().zip(first) {
                    assert_same(found, expected, &device.describe());
                }
            }
        }
    }
}

#[test]
fn groups_hold_each_row_once() {
    let mut groups = RowGroups::default();
    groups.fill(2, [Some(1), None, Some(0), Some(1)].into_iter());
    assert_eq!((groups.rows(0), groups.rows(1)), (&[2][..], &[0, 3][..]));
    assert_eq!((groups.n_groups(), groups.n_rows()), (2, 4));
    groups.fill(1, [None].into_iter());
    assert_eq!((groups.rows(0).len(), groups.n_rows()), (0, 1));
}

#[test]
fn matrices_that_do_not_fit_are_errors() {
    let device = devices().remove(0);
    let good = part(&mut Rng(1), WeightType::F32, 8, [4, 4], [2, 2]).source;
    let twice = [good.clone(), good.clone()];
    let packed = LowRank::pack(&device, &twice).expect("sizes fit").remove(1);
    let n_bytes = good.a.len() + good.targets.iter().map(|t| t.b.len()).sum::<usize>();
    assert!(packed.n_bytes() >= n_bytes && packed.n_bytes() < n_bytes + 160);
    let refused = |change: &dyn Fn(&mut LowRankSource<'static>)| {
        let mut source = good.clone();
        change(&mut source);
        LowRank::pack(&device, &[good.clone(), source]).unwrap_err()
    };
    assert_eq!(refused(&|s| s.n_in = 9), LowRankError::Sizes);
    assert_eq!(refused(&|s| s.scales.truncate(3)), LowRankError::Sizes);
    assert_eq!(refused(&|s| s.targets[1].n_out = 5), LowRankError::Sizes);
    assert_eq!(
        refused(&|s| s.targets[1].first_rank = 3),
        LowRankError::Sizes
    );
    assert_eq!(
        refused(&|s| s.ty = WeightType::Q8_0),
        LowRankError::Quantized(WeightType::Q8_0)
    );
}

#[test]
fn scattering_rows_undoes_gathering() {
    for device in devices() {
        let x = Buffer::from_slice(&device, &[1.0, 2.0, 3.0, 4.0]);
        let mut out = Buffer::from_slice(&device, &[0.5; 8]);
        device.scatter_rows(&x, 2, &[0, 3], &mut out);
        assert_eq!(*out.read(0..8), [1.0, 2.0, 0.5, 0.5, 0.5, 0.5, 3.0, 4.0]);
    }
}
