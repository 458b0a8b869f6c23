//! Mixtures of experts: 8 rows, 8 of 128 experts each.

use kernels::cuda::{self, DevicePtr, Route};
use kernels::{RouteScore, Routing};

use crate::{Counted, noise};

const N_ROWS: usize = 8;
const N_EXPERTS: usize = 128;
const N_USED: usize = 8;
const WIDTH: usize = 1024;

pub(crate) fn count(on: &mut Counted) {
    let gpu = &mut on.gpu;
    let n = N_ROWS * N_USED;
    let op = Route {
        logits: gpu.upload(&noise(N_ROWS * N_EXPERTS)),
        bias: DevicePtr::NULL,
        experts: gpu.alloc(n * 4),
        weights: gpu.alloc(n * 4),
        routing: Routing {
            n_experts: N_EXPERTS,
            n_used: N_USED,
            score: RouteScore::Softmax,
            groups: None,
            renormalize: true,
            scale: 1.0,
        },
    };
    let offsets = gpu.alloc((N_EXPERTS + 1) * 4);
    let (rows, places) = (gpu.alloc(n * 4), gpu.alloc(n * 4));
    let x = gpu.upload(&noise(n * WIDTH));
    let out = gpu.upload(&noise(N_ROWS * WIDTH));
    let shape = "8 rows, 8 of 128 experts";
    on.count(shape, &cuda::route(&op, N_ROWS));
    on.count(shape, &cuda::deal_rows(&op, N_ROWS, offsets, rows, places));
    let launch = cuda::combine_experts(&op, x, WIDTH, places, N_ROWS, out);
    on.count("8 rows of 1024, 8 experts each", &launch);
}
