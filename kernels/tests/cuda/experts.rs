//! Choosing experts: the device against the CPU, whose results have tests of their own.

use kernels::cuda::{self, DevicePtr, Route};
use kernels::{Buffer, CpuOptions, Device, RouteGroups, RouteScore, Routes, Routing};

use crate::common::{Rng, assert_same};
use crate::gpu::Gpu;

/// (expert, row, weight), sorted.
fn on_cpu(logits: &[f32], bias: Option<&[f32]>, routing: &Routing) -> Vec<(u32, u32, f32)> {
    let device = Device::cpu(CpuOptions::default());
    let mut routes = Routes::default();
    let bias = bias.map(|bias| Buffer::from_slice(&device, bias));
    let n_rows = logits.len() / routing.n_experts;
    let logits = Buffer::from_slice(&device, logits);
    device.route_into(&logits, bias.as_ref(), n_rows, routing, &mut routes);
    let by_expert = routes.by_expert.iter().enumerate();
    by_expert
        .flat_map(|(e, rows)| rows.iter().map(move |&(row, w)| (e as u32, row, w)))
        .collect()
}

fn check(logits: &[f32], bias: Option<&[f32]>, routing: Routing) {
    let (n_experts, n_used) = (routing.n_experts, routing.n_used);
    let n_rows = logits.len() / n_experts;
    let n = n_rows * n_used;
    let mut gpu = Gpu::new();
    let op = Route {
        logits: gpu.upload(logits),
        bias: bias.map_or(DevicePtr::NULL, |bias| gpu.upload(bias)),
        experts: gpu.alloc(n * 4),
        weights: gpu.alloc(n * 4),
        routing,
    };
    gpu.run(&cuda::route(&op, n_rows));
    let (offsets, rows, places) = (
        gpu.alloc((n_experts + 1) * 4),
        gpu.alloc(n * 4),
        gpu.alloc(n * 4),
    );
    gpu.run(&cuda::deal_rows(&op, n_rows, offsets, rows, places));
    let expected = on_cpu(logits, bias, &routing);
    let experts: Vec<u32> = gpu.download(op.experts, n);
    let weights: Vec<f32> = gpu.download(op.weights, n);
    let offsets: Vec<u32> = gpu.download(offsets, n_experts + 1);
    let dealt: Vec<u32> = gpu.download(rows, n);
    let of_choice: Vec<u32> = gpu.download(places, n);
    assert_eq!(offsets[n_experts] as usize, n);
    for i in 0..n {
        let place = of_choice[i] as usize;
        let (expert, row, weight) = expected[place];
        assert_eq!(
            (experts[i], (i / n_used) as u32),
            (expert, row),
            "{routing:?}"
        );
        assert!(
            (weights[i] - weight).abs() <= 1e-6 * weight.abs(),
            "{routing:?}"
        );
        assert_eq!(dealt[place], row);
        assert!((offsets[expert as usize]..offsets[expert as usize + 1]).contains(&of_choice[i]));
    }
    // Every expert's rows come back to where they belong.
    let width = 5;
    let (x, out) = (Rng(1).values(n * width), Rng(2).values(n_rows * width));
    let (x_at, out_at) = (gpu.upload(&x), gpu.upload(&out));
    gpu.run(&cuda::combine_experts(
        &op, x_at, width, places, n_rows, out_at,
    ));
    let mut sums = out;
    for i in 0..n {
        for k in 0..width {
            let sum = &mut sums[i / n_used * width + k];
            *sum = x[of_choice[i] as usize * width + k].mul_add(weights[i], *sum);
        }
    }
    assert_same(&gpu.download::<f32>(out_at, sums.len()), &sums, "combined");
}

#[test]
fn choices_weights_and_places_are_those_of_the_cpu() {
    let scores = [
        RouteScore::Softmax,
        RouteScore::Sigmoid,
        RouteScore::SoftmaxOfChosen,
    ];
    for (i, (n_experts, n_used, n_rows)) in
        [(4, 2, 9), (64, 8, 13), (5, 5, 1), (128, 1, 40), (256, 8, 3)]
            .into_iter()
            .cycle()
            .take(15)
            .enumerate()
    {
        let routing = Routing {
            n_experts,
            n_used,
            score: scores[i % 3],
            groups: None,
            renormalize: i % 2 == 0,
            scale: 1.5,
        };
        let logits: Vec<f32> = Rng(i as u64).values(n_rows * n_experts);
        let bias = Rng(77).values(n_experts);
        check(&logits, (i % 4 == 1).then_some(&bias[..]), routing);
    }
}

#[test]
fn groups_and_ties() {
    let routing = Routing {
        n_experts: 32,
        n_used: 4,
        score: RouteScore::Sigmoid,
        groups: Some(RouteGroups {
            n_groups: 8,
            n_used: 3,
        }),
        renormalize: true,
        scale: 2.5,
    };
    check(&Rng(5).values(32 * 11), Some(&Rng(6).values(32)), routing);
    // All equal: the lowest.
    check(&vec![1.0; 32 * 2], None, routing);
    let one = RouteGroups {
        n_groups: 32,
        n_used: 8,
    };
    check(
        &Rng(5).values(32 * 3),
        None,
        Routing {
            groups: Some(one),
            ..routing
        },
    );
}
