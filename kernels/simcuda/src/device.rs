//! A simulated device: what it is like, its memory, and the error that ended its context.

use ptxsim::Memory;

use crate::error::Error;

/// What cards of a compute capability are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card {
    pub(crate) name: &'static str,
    pub(crate) major: i32,
    pub(crate) minor: i32,
    pub(crate) n_multiprocessors: i32,
    pub(crate) threads_per_multiprocessor: i32,
    pub(crate) blocks_per_multiprocessor: i32,
    /// Shared memory of a multiprocessor, and what one block can have of it, in bytes.
    pub(crate) shared_per_multiprocessor: i32,
    pub(crate) shared_per_block: i32,
    pub(crate) l2_bytes: i32,
    pub(crate) memory_clock_khz: i32,
    pub(crate) bus_bits: i32,
    pub(crate) clock_khz: i32,
}

const KIB: i32 = 1024;

impl Card {
    /// An A100, L4 or H100.
    pub(crate) fn of(arch: u32) -> Self {
        let a100 = Self {
            name: "simulated sm_80",
            major: 8,
            minor: 0,
            n_multiprocessors: 108,
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
            shared_per_multiprocessor: 164 * KIB,
            shared_per_block: 163 * KIB,
            l2_bytes: 40 << 20,
            memory_clock_khz: 1_512_000,
            bus_bits: 5120,
            clock_khz: 1_410_000,
        };
        match arch {
            80 => a100,
            89 => Self {
                name: "simulated sm_89",
                minor: 9,
                n_multiprocessors: 58,
                threads_per_multiprocessor: 1536,
                blocks_per_multiprocessor: 24,
                shared_per_multiprocessor: 100 * KIB,
                shared_per_block: 99 * KIB,
                l2_bytes: 48 << 20,
                memory_clock_khz: 6_251_000,
                bus_bits: 192,
                ..a100
            },
            _ => Self {
                name: "simulated sm_90",
                major: 9,
                minor: 0,
                n_multiprocessors: 132,
                shared_per_multiprocessor: 228 * KIB,
                shared_per_block: 227 * KIB,
                l2_bytes: 50 << 20,
                memory_clock_khz: 2_619_000,
                clock_khz: 1_980_000,
                ..a100
            },
        }
    }

    /// A `CUdevice_attribute`.
    pub(crate) fn attribute(&self, attribute: i32) -> Option<i32> {
        Some(match attribute {
            1..=3 => 1024,
            4 => 64,
            5 => i32::MAX,
            6 | 7 => 65535,
            8 => 48 * KIB,
            9 => 64 * KIB,
            10 => 32,
            11 => i32::MAX,
            12 | 82 => 65536,
            13 => self.clock_khz,
            14 => 512,
            16 => self.n_multiprocessors,
            36 => self.memory_clock_khz,
            37 => self.bus_bits,
            38 => self.l2_bytes,
            39 => self.threads_per_multiprocessor,
            75 => self.major,
            76 => self.minor,
            81 => self.shared_per_multiprocessor,
            97 => self.shared_per_block,
            106 => self.blocks_per_multiprocessor,
            111 => KIB,
            // Asynchronous engines, concurrent kernels, unified addresses, stream priorities,
            // and memory pools.
            31 | 40 | 41 | 78 | 115 => 1,
            // No time limit, ECC, integrated memory, managed memory, cooperative launches,
            // pageable access, host registration or peers' atomics.
            15 | 17 | 18 | 20 | 32 | 35 | 83 | 84 | 85 | 88 | 89 | 95 | 96 | 98 | 99 | 100 => 0,
            _ => return None,
        })
    }
}

/// One device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) card: Card,
    pub(crate) memory: Memory,
    pub(crate) total_bytes: u64,
    /// After a fault nothing works until the context is made anew.
    pub(crate) lost: Option<Error>,
}

impl Device {
    pub(crate) fn new(ordinal: u32, arch: u32, total_bytes: u64) -> Self {
        Self {
            card: Card::of(arch),
            memory: Memory::of_device(ordinal),
            total_bytes,
            lost: None,
        }
    }
}
