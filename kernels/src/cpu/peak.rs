//! What this machine can do at best, measured by the instructions that ops consist of: the limits
//! that benchmarks compare ops with.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use super::{Cpu, amx};
use crate::memory::{OutOfMemory, Pages};

/// The best rates that were seen, of all threads together.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Bytes read from memory, far more than caches hold, in several streams a thread.
    pub bytes_per_s: f64,
    /// Products and sums of int8 dot instructions (two for each pair of bytes), or of tiles of int8.
    pub int8_ops_per_s: f64,
    /// Products and sums of bf16 in pairs, in whatever instructions the machine has for them.
    pub bf16_ops_per_s: f64,
    /// Products and sums of f32 multiply-adds.
    pub f32_ops_per_s: f64,
}

/// More than the last cache of common machines.
const MEMORY: usize = 512 << 20;
/// Sums under way at the same time: the latency of an instruction times how many begin a cycle, if
/// registers hold as many.
const SUMS: usize = 12;
const ROUNDS: usize = 4096;

/// See [`crate::Device::peak`].
pub(crate) fn measure(cpu: &Cpu, time: Duration) -> Result<Peak, OutOfMemory> {
    let mut pages = Pages::zeroed(MEMORY)?;
    // Touched, or all of it is one page of zeros.
    pages.as_mut_slice::<u8>().fill(1);
    let memory = pages.as_slice::<[u8; 64]>();
    let n_threads = cpu.pool.n_threads();
    let ops = (n_threads * ROUNDS * SUMS * LANES) as f64;
    let tile_ops = (n_threads * amx::peak::INT8_OPS) as f64;
    let mut sinks = vec![0.0; n_threads * LANES];
    let mut each = |work: &(dyn Fn(usize, &mut [f32]) + Sync)| {
        let sinks = SharedMut::new(&mut sinks);
        best(time, || {
            cpu.pool.run(n_threads, &|chunk, _| {
                // SAFETY: each chunk has a part of its own.
                work(chunk, unsafe { sinks.part(chunk * LANES, LANES) });
            });
        })
    };
    let part = memory.len() / n_threads;
    Ok(Peak {
        bytes_per_s: (n_threads * part * 64) as f64
            / each(&|chunk, sink| {
                cpu.isa.run(Read {
                    memory: &memory[chunk * part..][..part],
                    sink,
                });
            }),
        int8_ops_per_s: match &cpu.amx {
            Some(amx) => tile_ops / each(&|_, _| amx.dots(false)),
            None => 8.0 * ops / each(&|_, sink| cpu.isa.run(Dots { sink })),
        },
        bf16_ops_per_s: match &cpu.amx {
            Some(amx) => tile_ops / 2.0 / each(&|_, _| amx.dots(true)),
            None => 4.0 * ops / each(&|_, sink| cpu.isa.run(Pairs { sink })),
        },
        f32_ops_per_s: 2.0 * ops / each(&|_, sink| cpu.isa.run(Fmas { sink })),
    })
}

/// Seconds of the fastest of many calls.
fn best(time: Duration, mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    while best.is_infinite() || begin.elapsed() < time {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

struct Read<'a> {
    memory: &'a [[u8; 64]],
    sink: &'a mut [f32],
}

impl Kernel for Read<'_> {
    /// Eight streams side by side, as far apart as pages: a processor fetches ahead by pages.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const PAGE: usize = 64;
        const STREAMS: usize = 8;
        let mut sums = [s.splat_i(0); STREAMS];
        for pages in self.memory.chunks_exact(STREAMS * PAGE) {
            for line in 0..PAGE {
                for (stream, sum) in sums.iter_mut().enumerate() {
                    *sum = s.add_i(*sum, s.load_bytes(&pages[stream * PAGE + line]));
                }
            }
        }
        for sum in sums {
            s.store_part(s.to_f(sum), self.sink);
            black_box(&self.sink);
        }
    }
}

/// Defines a kernel that is as many sums at a time as registers hold.
macro_rules! sums {
    ($name:ident, $wide:literal, $four_rows:literal, $narrow:literal, $sums:ident) => {
        struct $name<'a> {
            sink: &'a mut [f32],
        }

        impl Kernel for $name<'_> {
            const PAIRS: bool = true;
            const DOTS: bool = true;

            #[inline(always)]
            fn run<S: Simd>(self, s: S) {
                if S::WIDE {
                    for _ in 0..SUMS / $wide {
                        $sums::<S, $wide>(s, self.sink);
                    }
                } else if S::FOUR_ROWS {
                    for _ in 0..SUMS / $four_rows {
                        $sums::<S, $four_rows>(s, self.sink);
                    }
                } else {
                    for _ in 0..SUMS / $narrow {
                        $sums::<S, $narrow>(s, self.sink);
                    }
                }
            }
        }
    };
}

sums!(Dots, 12, 6, 2, dots);
sums!(Pairs, 12, 6, 6, pairs);
sums!(Fmas, 12, 6, 6, fmas);

/// Codes of four bits, of which some machines do more at a time than of wider ones.
#[inline(always)]
fn dots<S: Simd, const N: usize>(s: S, sink: &mut [f32]) {
    const QUADS: usize = 8;
    let mut sums = [s.splat_i(0); N];
    let (codes, acts) = ([[1; 64]; QUADS], [[0x0102_0304; QUADS]; N]);
    for _ in 0..ROUNDS / QUADS {
        // Or what does not depend on the sums would be done but once.
        let (lines, acts) = black_box((&codes, &acts));
        let mut codes = [s.splat_i(0); QUADS];
        for i in 0..QUADS {
            codes[i] = s.load_bytes(&lines[i]);
        }
        let mut of_rows = [[].as_slice(); N];
        for r in 0..N {
            of_rows[r] = &acts[r];
        }
        sums = s.dots(sums, &codes, of_rows, 4);
    }
    for sum in sums {
        s.store_part(s.to_f(sum), sink);
        black_box(&sink);
    }
}

#[inline(always)]
fn pairs<S: Simd, const N: usize>(s: S, sink: &mut [f32]) {
    let mut sums = [s.zero(); N];
    for sum in &mut sums {
        *sum = s.splat(black_box(0.0));
    }
    // 1.5 twice, 0.5 twice: products with zeros could be done otherwise.
    let (a, b) = (black_box(0x3fc0_3fc0), black_box(0x3f00_3f00));
    let (a, b) = (s.splat_i(a), s.splat_i(b));
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = s.dot_bf16(*sum, a, b);
        }
    }
    for sum in sums {
        s.store_part(sum, sink);
        black_box(&sink);
    }
}

#[inline(always)]
fn fmas<S: Simd, const N: usize>(s: S, sink: &mut [f32]) {
    let mut sums = [s.zero(); N];
    for sum in &mut sums {
        *sum = s.splat(black_box(0.0));
    }
    let (a, b) = (s.splat(black_box(1.5)), s.splat(black_box(0.5)));
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = s.fma(a, b, *sum);
        }
    }
    for sum in sums {
        s.store_part(sum, sink);
        black_box(&sink);
    }
}
