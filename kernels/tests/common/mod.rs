//! What the tests of the ops share: machines, numbers, weights.

#![allow(dead_code, reason = "each test file uses a part of it")]

use half::{bf16, f16};
use kernels::{CpuOptions, Device, Isa, WeightSource, WeightType};

pub(crate) const DENSE: [WeightType; 3] = [WeightType::F32, WeightType::F16, WeightType::BF16];
pub(crate) const QUANTIZED: [WeightType; 11] = WeightType::QUANTIZED;

/// Every instruction set of this machine, alone and with a second thread.
pub(crate) fn devices() -> Vec<Device> {
    let mut devices = Vec::new();
    for isa in Isa::available() {
        for n_threads in [1, 2] {
            devices.push(Device::cpu(CpuOptions {
                n_threads: Some(n_threads),
                isa: Some(isa),
            }));
        }
    }
    devices
}

/// A small generator (splitmix64), so that every run tests the same numbers.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// About normal: the sum of four uniform numbers, scaled to a variance of one.
    pub(crate) fn value(&mut self) -> f32 {
        let sum: f32 = (0..4)
            .map(|_| (self.next() >> 40) as f32 / 16_777_216.0)
            .sum();
        (sum - 2.0) * 1.732
    }

    pub(crate) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    /// Weights of random codes and sane scales.
    pub(crate) fn weights(
        &mut self,
        ty: WeightType,
        n_out: usize,
        n_in: usize,
    ) -> WeightSource<'static> {
        let n = n_out * n_in;
        let bytes = match ty {
            WeightType::F32 => self.bytes_of(n, |x| x.to_le_bytes().to_vec()),
            WeightType::F16 => self.bytes_of(n, |x| f16::from_f32(x).to_le_bytes().to_vec()),
            WeightType::BF16 => self.bytes_of(n, |x| bf16::from_f32(x).to_le_bytes().to_vec()),
            _ => self.blocks(ty, n / ty.block_elements()),
        };
        WeightSource {
            ty,
            n_out,
            n_in,
            bytes: bytes.into(),
        }
    }

    fn bytes_of(&mut self, n: usize, store: impl Fn(f32) -> Vec<u8>) -> Vec<u8> {
        (0..n).flat_map(|_| store(self.value())).collect()
    }

    fn blocks(&mut self, ty: WeightType, n_blocks: usize) -> Vec<u8> {
        // Where the f16 scales of a block are.
        let scales: &[usize] = match ty {
            WeightType::Q2_K => &[80, 82],
            WeightType::Q3_K => &[108],
            WeightType::Q6_K => &[208],
            WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => &[0, 2],
            _ => &[0],
        };
        let mut bytes = Vec::new();
        for _ in 0..n_blocks {
            let first = bytes.len();
            bytes.extend((0..ty.block_bytes()).map(|_| (self.next() >> 32) as u8));
            for at in scales {
                let scale = f16::from_f32(self.value() * 0.03).to_le_bytes();
                bytes[first + at..first + at + 2].copy_from_slice(&scale);
            }
        }
        bytes
    }
}

/// The largest difference.
pub(crate) fn error(found: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let pairs = found.iter().zip(exact);
    pairs
        .map(|(&found, exact)| (f64::from(found) - exact).abs())
        // A NaN must not pass.
        .fold(
            0.0,
            |worst, error| if error <= worst { worst } else { error },
        )
}

/// Bitwise equality, with the first difference in the message.
pub(crate) fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "{what}: value {i} is {found}, expected {expected}"
        );
    }
}
