//! Block formats of quantized weights: what their bytes mean, and how they are laid out for
//! computing.

mod blocks;
mod fit;
mod join;
pub(crate) mod layout;
mod pack;
mod quantize;

pub(crate) use blocks::{IQ4_NL_VALUES, RawBlock, split};
pub(crate) use layout::{Layout, ScaleKind};
pub(crate) use pack::{pack, unpack_codes, unpack_scale};
pub use quantize::{encode_block, quantize};

use half::f16;

use crate::WeightType;

impl RawBlock {
    /// Scale and offset of the 16 or 32 values from `first` on: value = scale * code + offset.
    /// Both are exact in f32.
    pub(crate) fn scale_and_offset(&self, layout: Layout, first: usize) -> (f32, f32) {
        let d = f16::from_bits(self.d).to_f32();
        let m = f16::from_bits(self.m).to_f32();
        match layout.scales {
            ScaleKind::PerGroup => (d, 0.0),
            ScaleKind::PerGroupMin => (d, m),
            ScaleKind::Super32Min => {
                let i = first / 32;
                (
                    d * f32::from(self.scales[i]),
                    -(m * f32::from(self.mins[i])),
                )
            }
            ScaleKind::Super16 => (d * f32::from(self.scales[first / 16]), 0.0),
            ScaleKind::Super16Min => {
                let i = first / 16;
                (
                    d * f32::from(self.scales[i]),
                    -(m * f32::from(self.mins[i])),
                )
            }
        }
    }
}

/// The value of a code before scaling.
pub(crate) fn centred(layout: Layout, code: u8) -> f32 {
    if layout.codebook {
        f32::from(IQ4_NL_VALUES[usize::from(code)])
    } else {
        (i32::from(code) - layout.zero) as f32
    }
}

/// See [`crate::dequantize`]; `ty` is a block format.
pub(crate) fn dequantize_blocks(ty: WeightType, bytes: &[u8], out: &mut [f32]) {
    let layout = Layout::of(ty);
    let blocks = bytes.chunks_exact(ty.block_bytes());
    for (bytes, out) in blocks.zip(out.chunks_exact_mut(ty.block_elements())) {
        let block = split(ty, bytes);
        for (i, out) in out.iter_mut().enumerate() {
            let (scale, offset) = block.scale_and_offset(layout, i);
            *out = scale * centred(layout, block.codes[i]) + offset;
        }
    }
}
