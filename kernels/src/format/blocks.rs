//! Taking blocks of the GGUF formats apart into codes and scales.
//!
//! The byte layouts are those of the GGUF specification and of ggml's `block_q*` structs.

use crate::WeightType;

/// The values that IQ4_NL's sixteen codes stand for.
pub(crate) const IQ4_NL_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// A block taken apart. Codes are unsigned; what is not of the format is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawBlock {
    pub(crate) codes: [u8; 256],
    /// Scale of the block, f16 bits.
    pub(crate) d: u16,
    /// Minimum (32-value formats) or scale of the minima (256-value formats), f16 bits.
    pub(crate) m: u16,
    /// Integer scales of the groups of a 256-value block.
    pub(crate) scales: [i8; 16],
    pub(crate) mins: [u8; 16],
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Takes one block apart.
///
/// # Panics
/// When `bytes` is shorter than a block or `ty` has no blocks.
pub(crate) fn split(ty: WeightType, bytes: &[u8]) -> RawBlock {
    let mut block = RawBlock {
        codes: [0; 256],
        d: 0,
        m: 0,
        scales: [0; 16],
        mins: [0; 16],
    };
    match ty {
        WeightType::Q4_0 | WeightType::IQ4_NL => {
            block.d = u16_at(bytes, 0);
            nibbles(&bytes[2..18], &mut block.codes);
        }
        WeightType::Q4_1 => {
            block.d = u16_at(bytes, 0);
            block.m = u16_at(bytes, 2);
            nibbles(&bytes[4..20], &mut block.codes);
        }
        WeightType::Q5_0 => {
            block.d = u16_at(bytes, 0);
            nibbles(&bytes[6..22], &mut block.codes);
            fifth_bits(&bytes[2..6], &mut block.codes);
        }
        WeightType::Q5_1 => {
            block.d = u16_at(bytes, 0);
            block.m = u16_at(bytes, 2);
            nibbles(&bytes[8..24], &mut block.codes);
            fifth_bits(&bytes[4..8], &mut block.codes);
        }
        WeightType::Q8_0 => {
            block.d = u16_at(bytes, 0);
            for (code, byte) in block.codes.iter_mut().zip(&bytes[2..34]) {
                *code = byte ^ 0x80;
            }
        }
        WeightType::Q2_K => q2_k(bytes, &mut block),
        WeightType::Q3_K => q3_k(bytes, &mut block),
        WeightType::Q4_K => q4_k(bytes, &mut block),
        WeightType::Q5_K => q5_k(bytes, &mut block),
        WeightType::Q6_K => q6_k(bytes, &mut block),
        WeightType::F32 | WeightType::F16 | WeightType::BF16 => {
            unreachable!("{ty:?} has no blocks")
        }
    }
    block
}

/// Low nibbles are the first half of the values, high nibbles the second.
fn nibbles(packed: &[u8], codes: &mut [u8; 256]) {
    for (i, byte) in packed.iter().enumerate() {
        codes[i] = byte & 15;
        codes[i + packed.len()] = byte >> 4;
    }
}

fn fifth_bits(packed: &[u8], codes: &mut [u8; 256]) {
    for (i, code) in codes[..32].iter_mut().enumerate() {
        *code |= (packed[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// The two bits of value `i` in the planes of Q2_K and Q3_K: 128 values a plane of 32 bytes.
fn two_bits(packed: &[u8], i: usize) -> u8 {
    packed[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

fn q2_k(bytes: &[u8], block: &mut RawBlock) {
    for (i, byte) in bytes[..16].iter().enumerate() {
        block.scales[i] = (byte & 15) as i8;
        block.mins[i] = byte >> 4;
    }
    for (i, code) in block.codes.iter_mut().enumerate() {
        *code = two_bits(&bytes[16..80], i);
    }
    block.d = u16_at(bytes, 80);
    block.m = u16_at(bytes, 82);
}

fn q3_k(bytes: &[u8], block: &mut RawBlock) {
    let (high_bits, rest) = bytes.split_at(32);
    let packed_scales = &rest[64..76];
    for (i, scale) in block.scales.iter_mut().enumerate() {
        let low = packed_scales[i % 8] >> (i / 8 * 4) & 15;
        let high = packed_scales[8 + i % 4] >> (i / 4 * 2) & 3;
        *scale = (low | high << 4) as i8 - 32;
    }
    for (i, code) in block.codes.iter_mut().enumerate() {
        let high = high_bits[i % 32] >> (i / 32) & 1;
        *code = two_bits(&rest[..64], i) | high << 2;
    }
    block.d = u16_at(bytes, 108);
}

/// The eight 6-bit scales and minima of Q4_K and Q5_K.
fn six_bit_scales(packed: &[u8], block: &mut RawBlock) {
    for i in 0..4 {
        block.scales[i] = (packed[i] & 63) as i8;
        block.mins[i] = packed[i + 4] & 63;
        block.scales[i + 4] = (packed[i + 8] & 15 | packed[i] >> 6 << 4) as i8;
        block.mins[i + 4] = packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4;
    }
}

/// Nibbles of Q4_K and Q5_K: each 32 bytes hold 32 values low, then 32 values high.
fn nibbles_by_64(packed: &[u8], codes: &mut [u8; 256]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code = packed[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
    }
}

fn q4_k(bytes: &[u8], block: &mut RawBlock) {
    block.d = u16_at(bytes, 0);
    block.m = u16_at(bytes, 2);
    six_bit_scales(&bytes[4..16], block);
    nibbles_by_64(&bytes[16..144], &mut block.codes);
}

fn q5_k(bytes: &[u8], block: &mut RawBlock) {
    block.d = u16_at(bytes, 0);
    block.m = u16_at(bytes, 2);
    six_bit_scales(&bytes[4..16], block);
    nibbles_by_64(&bytes[48..176], &mut block.codes);
    let fifth = &bytes[16..48];
    for (i, code) in block.codes.iter_mut().enumerate() {
        *code |= (fifth[i % 32] >> (i / 32) & 1) << 4;
    }
}

fn q6_k(bytes: &[u8], block: &mut RawBlock) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    for (i, code) in block.codes.iter_mut().enumerate() {
        let half = i / 128;
        let quarter = i % 128 / 32;
        let l = i % 32;
        let nibble = low[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
        *code = nibble | (high[half * 32 + l] >> (quarter * 2) & 3) << 4;
    }
    for (scale, &byte) in block.scales.iter_mut().zip(&rest[..16]) {
        *scale = byte as i8;
    }
    block.d = u16_at(bytes, 208);
}
