//! The CPU back end: one file for each op, one version for each instruction set out of the same
//! lines (see [`simd`]).

pub(crate) mod activate;
mod activations;
mod ahead;
pub(crate) mod amx;
pub(crate) mod attention;
mod dense;
pub(crate) mod elementwise;
pub(crate) mod experts;
pub(crate) mod linear;
pub(crate) mod low_rank;
mod math;
pub(crate) mod norm;
pub(crate) mod packed;
pub(crate) mod peak;
mod pool;
mod quant;
pub(crate) mod rope;
mod shared;
pub(crate) mod simd;

use std::sync::Mutex;

use self::amx::Amx;
use self::attention::AttentionScratch;
use self::linear::LinearScratch;
use self::pool::Pool;
use self::simd::ActiveIsa;
use crate::{CpuOptions, Isa};

/// Threads, the instruction set, and scratch that ops keep.
#[derive(Debug)]
pub(crate) struct Cpu {
    pool: Pool,
    isa: ActiveIsa,
    /// Tiles, where the instruction set has them.
    amx: Option<Amx>,
    linear_scratch: LinearScratch,
    attention_scratch: AttentionScratch,
    /// Inner values of low-rank parts, one vector for each thread.
    low_rank_scratch: Vec<Mutex<Vec<f32>>>,
}

impl Cpu {
    pub(crate) fn new(options: CpuOptions) -> Self {
        let n_threads = options.n_threads.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        });
        let isa = options.isa.unwrap_or_else(Isa::best);
        let Some(isa) = ActiveIsa::new(isa) else {
            panic!("this machine has no {isa:?}; it has {:?}", {
                Isa::available().collect::<Vec<_>>()
            });
        };
        let amx = (isa.isa() == Isa::Amx).then(|| Amx::new(n_threads));
        Self {
            pool: Pool::new(n_threads),
            isa,
            amx: amx.flatten(),
            linear_scratch: LinearScratch::default(),
            attention_scratch: AttentionScratch::new(n_threads),
            low_rank_scratch: (0..n_threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// With tiles in plain Rust beside some instruction set.
    #[cfg(test)]
    pub(crate) fn with_modelled_tiles(options: CpuOptions) -> Self {
        let mut cpu = Self::new(options);
        cpu.amx = Some(Amx::model(cpu.isa, cpu.pool.n_threads()));
        cpu
    }

    pub(crate) fn describe(&self) -> String {
        let n_threads = self.pool.n_threads();
        let threads = if n_threads == 1 { "thread" } else { "threads" };
        let isa = self.isa.isa();
        let fault = if isa == Isa::Amx && self.amx.is_none() {
            " (without its products, which are wrong)"
        } else {
            ""
        };
        format!("CPU, {n_threads} {threads}, {isa}{fault}")
    }

    /// See [`crate::Device::arithmetic`]: all instruction sets round alike, and any number of
    /// threads, but for tiles of bf16.
    pub(crate) fn arithmetic(&self) -> String {
        match &self.amx {
            None => "CPU 3".to_owned(),
            Some(amx) if amx.rounds_as_modelled => "CPU 3 AMX".to_owned(),
            Some(_) => "CPU 3 AMX, rounded otherwise".to_owned(),
        }
    }

    /// Runs `work` for each of `0..n`, in parallel.
    pub(crate) fn for_each(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        self.pool.run(n, &|i, _| work(i));
    }

    /// Runs `work` over parts of `0..n`, in parallel when there is enough of it: `cost` is
    /// about the values touched by one of the `n`.
    fn for_parts(&self, n: usize, cost: usize, work: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
        /// Values below which waking another thread costs more than it brings.
        const WORTH: usize = 16_384;
        let n_parts = (n * cost).div_ceil(WORTH);
        let part = n
            .div_ceil(n_parts.clamp(1, self.pool.n_threads() * 4))
            .max(1);
        self.pool.run(n.div_ceil(part), &|chunk, _| {
            work(chunk * part..n.min((chunk + 1) * part));
        });
    }
}
