//! Mixtures of experts: which rows go where, and putting together what comes back.

use super::Cpu;
use super::elementwise::AddScaled;
use super::shared::SharedMut;
use crate::{RouteScore, Routes, Routing};

/// See [`crate::Device::route_into`]. Few values for each row, so this is plain code; sums and
/// exponentials are in f64, and of equal scores the lower index wins: nothing depends on the
/// machine or on other rows.
pub(crate) fn route(logits: &[f32], bias: Option<&[f32]>, routing: &Routing, routes: &mut Routes) {
    routes.by_expert.resize_with(routing.n_experts, Vec::new);
    for rows in &mut routes.by_expert {
        rows.clear();
    }
    for (row, logits) in logits.chunks_exact(routing.n_experts).enumerate() {
        for (expert, weight) in route_row(logits, bias, routing) {
            routes.by_expert[expert].push((row as u32, weight));
        }
    }
}

/// The experts of one row and their weights.
fn route_row(logits: &[f32], bias: Option<&[f32]>, routing: &Routing) -> Vec<(usize, f32)> {
    let scores = scores(logits, routing.score);
    let choice: Vec<f64> = match bias {
        Some(bias) => scores
            .iter()
            .zip(bias)
            .map(|(s, b)| s + f64::from(*b))
            .collect(),
        None => scores.clone(),
    };
    let chosen = best(&choice, routing.n_used, &allowed(&choice, routing));
    let mut weights: Vec<f64> = match routing.score {
        RouteScore::SoftmaxOfChosen => {
            let chosen: Vec<f32> = chosen.iter().map(|&expert| logits[expert]).collect();
            softmax(&chosen)
        }
        _ => chosen.iter().map(|&expert| scores[expert]).collect(),
    };
    if routing.renormalize {
        // A sum of zero can only be one of sigmoids that underflow.
        let sum = weights.iter().sum::<f64>() + 1e-20;
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    let weights = weights
        .iter()
        .map(|weight| (weight * f64::from(routing.scale)) as f32);
    chosen.into_iter().zip(weights).collect()
}

fn scores(logits: &[f32], score: RouteScore) -> Vec<f64> {
    match score {
        RouteScore::Softmax => softmax(logits),
        RouteScore::Sigmoid => {
            let sigmoid = |&x: &f32| 1.0 / (1.0 + (-f64::from(x)).exp());
            logits.iter().map(sigmoid).collect()
        }
        RouteScore::SoftmaxOfChosen => logits.iter().map(|&x| f64::from(x)).collect(),
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = logits
        .iter()
        .map(|&x| (f64::from(x) - f64::from(max)).exp());
    let exp: Vec<f64> = exp.collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|x| x / sum).collect()
}

/// Experts in the groups whose two best sum up highest.
fn allowed(choice: &[f64], routing: &Routing) -> Vec<bool> {
    let Some(groups) = routing.groups else {
        return vec![true; choice.len()];
    };
    let size = choice.len() / groups.n_groups;
    let all = vec![true; size];
    let sums: Vec<f64> = choice
        .chunks_exact(size)
        .map(|group| best(group, 2, &all).iter().map(|&i| group[i]).sum())
        .collect();
    let mut allowed = vec![false; choice.len()];
    for group in best(&sums, groups.n_used, &vec![true; groups.n_groups]) {
        allowed[group * size..(group + 1) * size].fill(true);
    }
    allowed
}

/// Indices of the `n` largest allowed values, largest first.
fn best(values: &[f64], n: usize, allowed: &[bool]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| allowed[i]).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(n);
    order
}

/// `out[rows[i].0] += rows[i].1 * x[i]`; no row occurs twice.
pub(crate) fn scatter_add(
    cpu: &Cpu,
    x: &[f32],
    width: usize,
    rows: &[(u32, f32)],
    out: &mut [f32],
) {
    let out = SharedMut::new(out);
    cpu.for_parts(rows.len(), width, &|part| {
        for i in part {
            let (row, scale) = rows[i];
            cpu.isa.run(AddScaled {
                x: &x[i * width..][..width],
                scale,
                // SAFETY: the device checked that rows ascend, so no two are the same.
                out: unsafe { out.part(row as usize * width, width) },
            });
        }
    });
}
