//! Whole numbers times scales of groups, and which block format says the same.

use half::f16;
use kernels::{WeightType, dequantize, encode_block};
use safetensors::Dtype;

use super::{Assembled, Wanted};
use crate::LoadError;
use crate::lookup::Lookup;

/// Values a block format has for one scale.
const BLOCK: usize = 32;

/// A matrix `[n_out, n_in]` as `codes[row, i] * scales[row, group(i)]`.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) codes: Vec<i16>,
    /// `[n_out, n_groups]`.
    pub(super) scales: Vec<f32>,
    pub(super) groups: Groups,
}

/// Which group an input is in.
#[derive(Debug)]
pub(super) enum Groups {
    /// So many neighbours each.
    Even(usize),
    /// In the order in which the inputs were quantized.
    Listed(Vec<usize>),
}

impl Groups {
    /// As the tensor `name` lists them, or even ones if there is none.
    pub(super) fn read(
        lookup: &Lookup<'_>,
        name: &str,
        n_in: usize,
        group_size: usize,
    ) -> Result<Self, LoadError> {
        if !lookup.has(name) {
            return Ok(Self::Even(group_size));
        }
        let tensor = lookup
            .raw(name)?
            .expect(name, &[Dtype::I32, Dtype::U32], &[n_in])?;
        let groups: Vec<usize> = tensor.words().iter().map(|group| *group as usize).collect();
        // Minus one stands for what was not put in order.
        let is_plain = groups.iter().all(|group| *group == u32::MAX as usize);
        if is_plain || groups.iter().enumerate().all(|(i, g)| *g == i / group_size) {
            return Ok(Self::Even(group_size));
        }
        let n_groups = n_in.div_ceil(group_size);
        if groups.iter().any(|group| *group >= n_groups) {
            return Err(tensor.error(name, format!("a group is not below {n_groups}")));
        }
        Ok(Self::Listed(groups))
    }

    /// The group of input `i`.
    pub(super) fn of(&self, i: usize) -> usize {
        match self {
            Self::Even(size) => i / size,
            Self::Listed(groups) => groups[i],
        }
    }
}

impl Codes {
    /// In a block format if one is exact.
    pub(super) fn assemble(&self, wanted: Wanted<'_>) -> Assembled {
        match self.exact_type(wanted.n_in) {
            Some(ty) => Assembled {
                ty,
                bytes: self.blocks(ty, wanted.n_in),
                is_widened: false,
            },
            None => wanted.widened(&self.values(wanted.n_in)),
        }
    }

    /// The smallest format whose codes reach, if groups are of whole blocks and every scale is a
    /// number that f16 has.
    fn exact_type(&self, n_in: usize) -> Option<WeightType> {
        let Groups::Even(size) = self.groups else {
            return None;
        };
        let is_exact = |x: &f32| x.is_finite() && f16::from_f32(*x).to_f32() == *x;
        if !n_in.is_multiple_of(BLOCK)
            || !(size.is_multiple_of(BLOCK) || size >= n_in)
            || !self.scales.iter().all(is_exact)
        {
            return None;
        }
        let low = self.codes.iter().min().copied().unwrap_or(0);
        let high = self.codes.iter().max().copied().unwrap_or(0);
        let formats = [
            (WeightType::Q4_0, -8, 7),
            (WeightType::Q5_0, -16, 15),
            (WeightType::Q8_0, -128, 127),
        ];
        let fits = formats
            .into_iter()
            .find(|(_, least, most)| low >= *least && high <= *most);
        fits.map(|(ty, ..)| ty)
    }

    fn blocks(&self, ty: WeightType, n_in: usize) -> Vec<u8> {
        let n_out = self.codes.len() / n_in;
        let n_groups = self.scales.len() / n_out;
        let mut bytes = vec![0; self.codes.len() / BLOCK * ty.block_bytes()];
        let blocks = self.codes.chunks_exact(BLOCK);
        for (i, (codes, out)) in blocks
            .zip(bytes.chunks_exact_mut(ty.block_bytes()))
            .enumerate()
        {
            let (row, first) = (i * BLOCK / n_in, i * BLOCK % n_in);
            let scale = self.scales[row * n_groups + self.groups.of(first)];
            let codes = std::array::from_fn(|k| codes[k] as i8);
            encode_block(ty, f16::from_f32(scale), &codes, out);
        }
        debug_assert!({
            // What was mapped exactly widens to what was stored.
            let mut values = vec![0.0; self.codes.len()];
            dequantize(ty, &bytes, &mut values);
            values == self.values(n_in)
        });
        bytes
    }

    fn values(&self, n_in: usize) -> Vec<f32> {
        let n_out = self.codes.len() / n_in.max(1);
        let n_groups = self.scales.len() / n_out.max(1);
        let value = |(at, code): (usize, &i16)| {
            let (row, i) = (at / n_in, at % n_in);
            f32::from(*code) * self.scales[row * n_groups + self.groups.of(i)]
        };
        self.codes.iter().enumerate().map(value).collect()
    }
}
