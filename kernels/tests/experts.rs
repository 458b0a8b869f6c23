//! Choosing experts for rows, and adding up what they give.

mod common;

use common::{Rng, assert_same, devices};
use kernels::{Buffer, Device, RouteGroups, RouteScore, Routes, Routing};

const PLAIN: Routing = Routing {
    n_experts: 4,
    n_used: 2,
    score: RouteScore::Softmax,
    groups: None,
    renormalize: false,
    scale: 1.0,
};

/// Experts and weights of each row, as (row, expert, weight).
fn route(logits: &[f32], bias: Option<&[f32]>, routing: &Routing) -> Vec<(u32, usize, f32)> {
    let device = devices().remove(0);
    let mut routes = Routes::default();
    route_on(&device, logits, bias, routing, &mut routes);
    let by_expert = routes.by_expert.iter().enumerate();
    let mut all: Vec<_> = by_expert
        .flat_map(|(expert, rows)| rows.iter().map(move |&(row, w)| (row, expert, w)))
        .collect();
    all.sort_by_key(|&(row, expert, _)| (row, expert));
    all
}

fn route_on(
    device: &Device,
    logits: &[f32],
    bias: Option<&[f32]>,
    routing: &Routing,
    routes: &mut Routes,
) {
    let logits_buffer = Buffer::from_slice(device, logits);
    let bias = bias.map(|bias| Buffer::from_slice(device, bias));
    let n_rows = logits.len() / routing.n_experts;
    device.route_into(&logits_buffer, bias.as_ref(), n_rows, routing, routes);
}

fn close(found: &[(u32, usize, f32)], expected: &[(u32, usize, f64)]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.0, found.1), (expected.0, expected.1), "{found:?}");
        assert!(
            (f64::from(found.2) - expected.2).abs() < 1e-7,
            "{found:?}, {expected:?}"
        );
    }
}

#[test]
fn weights_are_those_of_each_kind_of_score() {
    let logits = [1.0, 3.0, 2.0, -1.0];
    let e = |x: f64| x.exp();
    let all = e(1.0) + e(3.0) + e(2.0) + e(-1.0);
    let two = e(3.0) + e(2.0);
    close(
        &route(&logits, None, &PLAIN),
        &[(0, 1, e(3.0) / all), (0, 2, e(2.0) / all)],
    );
    let chosen = [(0, 1, e(3.0) / two), (0, 2, e(2.0) / two)];
    let renormalize = Routing {
        renormalize: true,
        ..PLAIN
    };
    close(&route(&logits, None, &renormalize), &chosen);
    let score = RouteScore::SoftmaxOfChosen;
    close(&route(&logits, None, &Routing { score, ..PLAIN }), &chosen);
    let sigmoid = |x: f64| 1.0 / (1.0 + e(-x));
    let scaled = Routing {
        score: RouteScore::Sigmoid,
        scale: 2.5,
        ..PLAIN
    };
    let expected = [(0, 1, 2.5 * sigmoid(3.0)), (0, 2, 2.5 * sigmoid(2.0))];
    close(&route(&logits, None, &scaled), &expected);
    // A bias moves the choice, not the weight.
    let bias = [0.0, 0.0, 0.0, 9.0];
    let expected = [(0, 1, 2.5 * sigmoid(3.0)), (0, 3, 2.5 * sigmoid(-1.0))];
    close(&route(&logits, Some(&bias), &scaled), &expected);
}

#[test]
fn ties_go_to_the_lower_number() {
    let found = route(&[1.0, 1.0, 1.0, 1.0], None, &PLAIN);
    close(&found, &[(0, 0, 0.25), (0, 1, 0.25)]);
}

#[test]
fn groups_are_chosen_by_their_two_best() {
    let grouped = Routing {
        n_experts: 8,
        n_used: 2,
        score: RouteScore::Sigmoid,
        groups: Some(RouteGroups {
            n_groups: 4,
            n_used: 1,
        }),
        renormalize: true,
        scale: 1.0,
    };
    // The best expert of all is in a group whose second is bad.
    let logits = [5.0, -9.0, 1.0, 1.2, 0.0, 0.1, -1.0, -1.0];
    let found: Vec<usize> = route(&logits, None, &grouped).iter().map(|r| r.1).collect();
    assert_eq!(found, [2, 3]);
}

#[test]
fn rows_do_not_see_each_other() {
    let logits = Rng(6).values(40 * 4);
    let together = route(&logits, None, &PLAIN);
    for (row, logits) in logits.chunks(4).enumerate() {
        let alone: Vec<_> = route(logits, None, &PLAIN);
        let there = together.iter().filter(|r| r.0 as usize == row);
        let there: Vec<_> = there.map(|r| (0, r.1, r.2)).collect();
        assert_eq!(alone, there);
    }
}

#[test]
fn what_was_routed_before_is_forgotten() {
    let device = devices().remove(0);
    let mut routes = Routes::default();
    route_on(&device, &[0.0; 16], None, &PLAIN, &mut routes);
    route_on(&device, &[0.0, 1.0, 2.0, 3.0], None, &PLAIN, &mut routes);
    let counts: Vec<usize> = routes.by_expert.iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 0, 1, 1]);
}

#[test]
fn scattering_adds_weighted_rows() {
    let (n_rows, width) = (9, 1001);
    let (x, out) = (Rng(1).values(3 * width), Rng(2).values(n_rows * width));
    let rows = [(1, 0.5), (4, 2.0), (8, -1.0)];
    for device in devices() {
        let mut found = Buffer::from_slice(&device, &out);
        device.scatter_add_rows(&Buffer::from_slice(&device, &x), width, &rows, &mut found);
        let mut expected = out.clone();
        for (i, &(row, weight)) in rows.iter().enumerate() {
            for k in 0..width {
                let to = &mut expected[row as usize * width + k];
                *to = x[i * width + k].mul_add(weight, *to);
            }
        }
        assert_same(&found.read(0..out.len()), &expected, "scattered");
    }
}
