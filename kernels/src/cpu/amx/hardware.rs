//! The instructions themselves. Their intrinsics are not stable, so they are written out; the
//! compiler never keeps anything in tiles, so there is nothing to tell it about them.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::marker::PhantomData;

use super::tiles::{N_TILES, Shapes, Tiles, Unit};
use crate::Isa;
use crate::cpu::simd::{self, Kernel};
use crate::memory::Plain;

/// Exists only where [`is_available`] was true.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hardware(());

/// Whether this machine has AMX with int8 and bf16 beside all of [`Isa::Avx512Bf16`], and the
/// system lets this process use it. Linux wants to be asked once; it may be asked again.
pub(crate) fn is_available() -> bool {
    Isa::Avx512Bf16.is_available() && is_there() && is_switched_on() && is_permitted()
}

fn is_there() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    let all = BF16 | TILE | INT8;
    __cpuid_count(7, 0).edx & all == all
}

/// Whether the system keeps tiles and their configuration for each thread.
fn is_switched_on() -> bool {
    #[target_feature(enable = "xsave")]
    fn kept() -> u64 {
        // SAFETY: a machine whose AVX-512 is in use has XGETBV, and register 0 of it.
        unsafe { _xgetbv(0) }
    }
    const TILES: u64 = 0b11 << 17;
    // SAFETY: as above: `is_available` has seen AVX-512 before.
    unsafe { kept() & TILES == TILES }
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`: Linux keeps no room for tiles in the
/// signal frames of a process that did not ask.
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: changes only what the system allows this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

impl Hardware {
    pub(super) fn find() -> Option<Self> {
        is_available().then_some(Self(()))
    }

    /// Runs a kernel with AVX-512 around its tiles.
    pub(super) fn run(self, kernel: impl Kernel) {
        // SAFETY: `find` has seen the features of `Isa::Avx512Bf16`, which has all of
        // `Isa::Avx512`.
        unsafe { simd::run_avx512(kernel) }
    }
}

impl Unit for Hardware {
    type Tiles = HardwareTiles;

    #[inline(always)]
    fn configure(self, shapes: Shapes) -> HardwareTiles {
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for (i, shape) in shapes.iter().enumerate() {
            config.row_bytes[i] = shape.row_bytes;
            config.rows[i] = shape.rows;
        }
        // SAFETY: `self` proves that there are tiles; the 64 bytes are palette 1 with shapes
        // within its limits, which `Shape::new` has checked.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config,
                options(readonly, nostack, preserves_flags));
        }
        HardwareTiles {
            shapes,
            thread: PhantomData,
        }
    }
}

/// What `LDTILECFG` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tiles of the thread that configured them, until it drops this.
#[derive(Debug)]
pub(super) struct HardwareTiles {
    shapes: Shapes,
    thread: PhantomData<*const ()>,
}

impl Drop for HardwareTiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the machine has tiles. A thread without any in use is cheaper to switch.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

impl Tiles for HardwareTiles {
    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        const { assert!(T < N_TILES) }
        // SAFETY: the tile is configured.
        unsafe { asm!("tilezero tmm{}", const T, options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn load<const T: usize>(&mut self, from: &[impl Plain], stride: usize) {
        assert!(self.shapes[T].extent(stride) <= size_of_val(from));
        // SAFETY: the tile is configured, and all of its rows lie within `from`.
        unsafe {
            asm!("tileloadd tmm{t}, [{from} + {stride}*1]", t = const T,
                from = in(reg) from.as_ptr(), stride = in(reg) stride,
                options(readonly, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn store<const T: usize>(&self, to: &mut [impl Plain], stride: usize) {
        assert!(self.shapes[T].extent(stride) <= size_of_val(to));
        // SAFETY: the tile is configured, and all of its rows lie within `to`, of which any bytes
        // are a value.
        unsafe {
            asm!("tilestored [{to} + {stride}*1], tmm{t}", t = const T,
                to = in(reg) to.as_mut_ptr(), stride = in(reg) stride,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn dot_bytes<const C: usize, const A: usize, const B: usize>(&mut self) {
        const { assert!(C != A && C != B && A != B) }
        // SAFETY: the tiles are configured and different; their shapes fit, as the model, which
        // runs the same kernels, has checked.
        unsafe {
            asm!("tdpbssd tmm{}, tmm{}, tmm{}", const C, const A, const B,
                options(nomem, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn dot_pairs<const C: usize, const A: usize, const B: usize>(&mut self) {
        const { assert!(C != A && C != B && A != B) }
        // SAFETY: as above.
        unsafe {
            asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const C, const A, const B,
                options(nomem, nostack, preserves_flags));
        }
    }
}
