//! What kernels ask of memory, counted by the simulator on launches of common shapes: sectors of
//! global memory and passes over shared memory, and the fewest that would do.
//!
//! `cargo run --release -p kernels --example traffic` prints it as JSON, a launch a line, from
//! which `cargo xtask kernels` makes the table of kernels/README.md.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

#[path = "../../tests/cuda/gpu.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod gpu;

mod attention;
mod experts;
mod linear;
mod rows;
mod sample;

use gpu::Gpu;
use kernels::cuda::{self, Launch};

/// Runs launches and says what they took.
struct Counted {
    gpu: Gpu,
    capability: (u32, u32),
}

impl Counted {
    /// Runs a launch of this shape and prints its line; on a newer device only if it has an image
    /// of its own.
    fn count(&self, shape: &str, launch: &Launch) {
        let counters = self.gpu.run(launch);
        let image = |capability| cuda::images_for(capability).find(|i| i.name == launch.image);
        let image = image(self.capability).map_or((0, 0), |image| image.capability);
        if image != self.capability {
            return;
        }
        let line = serde_json::json!({
            "kernel": launch.kernel,
            "shape": shape,
            "arch": if image == (9, 0) { "90a" } else { "80" },
            "passes": counters.shared_wavefronts,
            "ideal_passes": counters.shared_ideal,
            "requests": counters.global_requests,
            "sectors": counters.global_sectors,
            "ideal_sectors": counters.global_ideal,
        });
        println!("{line}");
    }
}

fn main() {
    for capability in [(8, 0), (9, 0)] {
        let gpu = Gpu::of(capability);
        let mut counted = Counted { gpu, capability };
        rows::count(&mut counted);
        linear::count(&mut counted);
        attention::count(&mut counted);
        if capability == (8, 0) {
            experts::count(&mut counted);
            sample::count(&mut counted);
        } else {
            linear::count_wgmma(&mut counted);
        }
    }
}

/// Values without structure, the same every time.
fn noise(n: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
