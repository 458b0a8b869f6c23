//! Choosing experts on a GPU.

use super::gpu::Gpu;
use super::scratch::Kind;
use crate::cuda::{self, DevicePtr, Route};
use crate::{Routes, Routing};

impl Gpu {
    /// The choice is made on the device and read by the host, which starts the experts' layers.
    pub(crate) fn route(
        &self,
        logits: DevicePtr,
        bias: DevicePtr,
        n_rows: usize,
        routing: &Routing,
        routes: &mut Routes,
    ) {
        let n = n_rows * routing.n_used;
        let mut step = self.step();
        let op = Route {
            logits,
            bias,
            experts: step.scratch(Kind::Experts, 4 * n),
            weights: step.scratch(Kind::Weights, 4 * n),
            routing: *routing,
        };
        step.push(cuda::route(&op, n_rows));
        // Numbers of experts are read as they are, whatever floats their bits would be.
        let (mut experts, mut weights) = (vec![0.0_f32; n], vec![0.0_f32; n]);
        step.read(op.experts, &mut experts);
        step.read(op.weights, &mut weights);
        routes.by_expert.resize_with(routing.n_experts, Vec::new);
        routes.by_expert.iter_mut().for_each(Vec::clear);
        let choices = experts.iter().map(|bits| bits.to_bits()).zip(weights);
        for (i, (expert, weight)) in choices.enumerate() {
            routes.by_expert[expert as usize].push((cuda::uint(i / routing.n_used), weight));
        }
    }
}
