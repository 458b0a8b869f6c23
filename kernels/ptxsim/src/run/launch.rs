//! A launch: shape, checks against the kernel's limits, blocks over threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::BlockRunner;
use super::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::kernel::Kernel;
use crate::memory::Memory;

/// Most shared memory of a block: what an H100 allows.
const MAX_SHARED: usize = 227 * 1024;
const MAX_THREADS: u32 = 1024;

/// How strict, and with how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether reading global bytes that nothing has written is a fault; else they read as 0xFF.
    pub strict_global: bool,
    /// Warp instructions after which a block is taken to run for ever.
    pub max_instructions: u64,
    /// Threads that run blocks; 0 for as many as the machine runs at once.
    pub n_workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strict_global: true,
            max_instructions: 1 << 31,
            n_workers: 0,
        }
    }
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks by axis.
    pub grid: [u32; 3],
    /// Threads of a block by axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: usize,
    /// How it is run.
    pub options: Options,
}

impl Launch {
    /// A launch without dynamic shared memory.
    #[must_use]
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self {
            grid,
            block,
            dynamic_shared: 0,
            options: Options::default(),
        }
    }

    /// The same with dynamic shared memory.
    #[must_use]
    pub fn with_shared(self, dynamic_shared: usize) -> Self {
        Self {
            dynamic_shared,
            ..self
        }
    }

    /// The same with other options.
    #[must_use]
    pub fn with_options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    pub(crate) fn n_threads(&self) -> u32 {
        self.block.iter().product()
    }

    fn n_blocks(&self) -> u64 {
        self.grid.iter().map(|n| u64::from(*n)).product()
    }

    fn block_at(&self, idx: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [
            (idx % x) as u32,
            (idx / x % y) as u32,
            (idx / (x * y)) as u32,
        ]
    }

    /// What is wrong with it for this kernel.
    fn refusal(&self, kernel: &Kernel) -> Option<String> {
        let n_threads: u64 = self.block.iter().map(|n| u64::from(*n)).product();
        let limit = kernel.max_threads.unwrap_or(MAX_THREADS).min(MAX_THREADS);
        let shared = kernel.shared.static_bytes + self.dynamic_shared;
        if self.grid.contains(&0) || self.block.contains(&0) {
            return Some(format!("grid {:?}, block {:?}", self.grid, self.block));
        }
        if self.grid[1] > 65535 || self.grid[2] > 65535 {
            return Some(format!("grid {:?}", self.grid));
        }
        if n_threads > u64::from(limit) || self.block[2] > 64 {
            return Some(format!(
                "block {:?}, where {limit} threads may be",
                self.block
            ));
        }
        (shared > MAX_SHARED).then(|| format!("{shared} bytes of shared memory"))
    }
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Blocks run.
    pub n_blocks: u64,
    /// What they did, summed.
    pub counters: Counters,
}

/// The number of a block and its fault.
type FirstFault = (u64, Box<Fault>);

/// Runs a kernel over its grid. Of several faults the one of the lowest block is told.
pub(crate) fn run(
    kernel: &Kernel,
    launch: &Launch,
    params: &[u8],
    memory: &Memory,
) -> Result<Report, Box<Fault>> {
    if let Some(what) = launch.refusal(kernel) {
        return Err(kernel.refuse(FaultKind::Launch { what }));
    }
    let n_blocks = launch.n_blocks();
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let n_workers = match launch.options.n_workers {
        0 => cores(),
        n => n,
    };
    let n_workers = n_workers.min(usize::try_from(n_blocks).unwrap_or(usize::MAX));
    let next = AtomicU64::new(0);
    let found: Mutex<(Counters, Option<FirstFault>)> = Mutex::default();
    let work = || {
        let mut runner = BlockRunner::new(kernel, launch, params, memory);
        let mut fault = None;
        loop {
            let idx = next.fetch_add(1, Ordering::Relaxed);
            if idx >= n_blocks {
                break;
            }
            if let Err(found) = runner.run(launch.block_at(idx)) {
                // Lower blocks have begun already; later ones need not.
                next.store(n_blocks, Ordering::Relaxed);
                fault = Some((idx, found));
                break;
            }
        }
        let mut found = found
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        found.0.add(&runner.counters);
        let earlier = |(idx, _): &FirstFault| found.1.as_ref().is_none_or(|(other, _)| idx < other);
        if fault.as_ref().is_some_and(earlier) {
            found.1 = fault;
        }
    };
    if n_workers == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..n_workers {
                scope.spawn(work);
            }
        });
    }
    let (counters, fault) = found
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match fault {
        Some((_, fault)) => Err(fault),
        None => Ok(Report { n_blocks, counters }),
    }
}
