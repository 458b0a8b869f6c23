//! Putting codes and scales together into blocks of the GGUF formats: [`super::split`] backwards.

use super::blocks::RawBlock;
use crate::WeightType;

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Writes one block.
///
/// # Panics
/// When `bytes` is not as long as a block, or `ty` has no blocks.
pub(crate) fn join(ty: WeightType, block: &RawBlock, bytes: &mut [u8]) {
    assert_eq!(bytes.len(), ty.block_bytes(), "{ty:?}: one block");
    bytes.fill(0);
    match ty {
        WeightType::Q4_0 | WeightType::IQ4_NL => {
            put_u16(bytes, 0, block.d);
            nibbles(&block.codes, &mut bytes[2..18]);
        }
        WeightType::Q4_1 => {
            put_u16(bytes, 0, block.d);
            put_u16(bytes, 2, block.m);
            nibbles(&block.codes, &mut bytes[4..20]);
        }
        WeightType::Q5_0 => {
            put_u16(bytes, 0, block.d);
            fifth_bits(&block.codes, &mut bytes[2..6]);
            nibbles(&block.codes, &mut bytes[6..22]);
        }
        WeightType::Q5_1 => {
            put_u16(bytes, 0, block.d);
            put_u16(bytes, 2, block.m);
            fifth_bits(&block.codes, &mut bytes[4..8]);
            nibbles(&block.codes, &mut bytes[8..24]);
        }
        WeightType::Q8_0 => {
            put_u16(bytes, 0, block.d);
            for (byte, code) in bytes[2..34].iter_mut().zip(&block.codes) {
                *byte = code ^ 0x80;
            }
        }
        WeightType::Q2_K => q2_k(block, bytes),
        WeightType::Q3_K => q3_k(block, bytes),
        WeightType::Q4_K => q4_k(block, bytes),
        WeightType::Q5_K => q5_k(block, bytes),
        WeightType::Q6_K => q6_k(block, bytes),
        WeightType::F32 | WeightType::F16 | WeightType::BF16 => {
            unreachable!("{ty:?} has no blocks")
        }
    }
}

fn nibbles(codes: &[u8; 256], packed: &mut [u8]) {
    let half = packed.len();
    for (i, byte) in packed.iter_mut().enumerate() {
        *byte = codes[i] & 15 | (codes[i + half] & 15) << 4;
    }
}

fn fifth_bits(codes: &[u8; 256], packed: &mut [u8]) {
    for (i, code) in codes[..32].iter().enumerate() {
        packed[i / 8] |= (code >> 4 & 1) << (i % 8);
    }
}

fn two_bits(codes: &[u8; 256], packed: &mut [u8]) {
    for (i, code) in codes.iter().enumerate() {
        packed[i / 128 * 32 + i % 32] |= (code & 3) << (i % 128 / 32 * 2);
    }
}

fn q2_k(block: &RawBlock, bytes: &mut [u8]) {
    let pairs = block.scales.iter().zip(&block.mins);
    for (byte, (scale, min)) in bytes.iter_mut().zip(pairs) {
        *byte = scale.cast_unsigned() & 15 | min << 4;
    }
    two_bits(&block.codes, &mut bytes[16..80]);
    put_u16(bytes, 80, block.d);
    put_u16(bytes, 82, block.m);
}

fn q3_k(block: &RawBlock, bytes: &mut [u8]) {
    for (i, code) in block.codes.iter().enumerate() {
        bytes[i % 32] |= (code >> 2 & 1) << (i / 32);
    }
    two_bits(&block.codes, &mut bytes[32..96]);
    for (i, scale) in block.scales.iter().enumerate() {
        let code = (scale + 32).cast_unsigned();
        bytes[96 + i % 8] |= (code & 15) << (i / 8 * 4);
        bytes[104 + i % 4] |= (code >> 4 & 3) << (i / 4 * 2);
    }
    put_u16(bytes, 108, block.d);
}

fn six_bit_scales(block: &RawBlock, packed: &mut [u8]) {
    let scale = |i: usize| block.scales[i].cast_unsigned();
    for i in 0..4 {
        packed[i] = scale(i) & 63 | scale(i + 4) >> 4 << 6;
        packed[i + 4] = block.mins[i] & 63 | block.mins[i + 4] >> 4 << 6;
        packed[i + 8] = scale(i + 4) & 15 | (block.mins[i + 4] & 15) << 4;
    }
}

fn nibbles_by_64(codes: &[u8; 256], packed: &mut [u8]) {
    for (i, code) in codes.iter().enumerate() {
        packed[i / 64 * 32 + i % 32] |= (code & 15) << (i % 64 / 32 * 4);
    }
}

fn q4_k(block: &RawBlock, bytes: &mut [u8]) {
    put_u16(bytes, 0, block.d);
    put_u16(bytes, 2, block.m);
    six_bit_scales(block, &mut bytes[4..16]);
    nibbles_by_64(&block.codes, &mut bytes[16..144]);
}

fn q5_k(block: &RawBlock, bytes: &mut [u8]) {
    put_u16(bytes, 0, block.d);
    put_u16(bytes, 2, block.m);
    six_bit_scales(block, &mut bytes[4..16]);
    for (i, code) in block.codes.iter().enumerate() {
        bytes[16 + i % 32] |= (code >> 4 & 1) << (i / 32);
    }
    nibbles_by_64(&block.codes, &mut bytes[48..176]);
}

fn q6_k(block: &RawBlock, bytes: &mut [u8]) {
    for (i, code) in block.codes.iter().enumerate() {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        bytes[half * 64 + quarter % 2 * 32 + l] |= (code & 15) << (quarter / 2 * 4);
        bytes[128 + half * 32 + l] |= (code >> 4 & 3) << (quarter * 2);
    }
    for (byte, scale) in bytes[192..208].iter_mut().zip(&block.scales) {
        *byte = scale.cast_unsigned();
    }
    put_u16(bytes, 208, block.d);
}

#[cfg(test)]
mod tests {
    use super::super::split;
    use super::*;

    /// Every byte of every format is a code or a scale, so random bytes come back.
    #[test]
    fn what_was_taken_apart_is_put_together_again() {
        let mut state = 0x2545_f491_u32;
        for ty in WeightType::QUANTIZED {
            for _ in 0..50 {
                let mut bytes = vec![0; ty.block_bytes()];
                for byte in &mut bytes {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *byte = (state >> 24) as u8;
                }
                let mut joined = vec![0xaa; bytes.len()];
                join(ty, &split(ty, &bytes), &mut joined);
                assert_eq!(joined, bytes, "{ty:?}");
            }
        }
    }
}
