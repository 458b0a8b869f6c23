//! Rounding layers, and packing them as the formats' definitions say.

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;

/// Tensors of a file to be: name, type, shape, bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A linear layer as numbers: `codes[out][in]` times the scale of its group.
pub(crate) struct Layer {
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
    pub(crate) group: usize,
    /// With the zero point subtracted.
    pub(crate) codes: Vec<i32>,
    /// `[n_out][n_groups]`, of f16.
    pub(crate) scales: Vec<f32>,
    pub(crate) zeros: Vec<i32>,
}

impl Layer {
    pub(crate) fn n_groups(&self) -> usize {
        self.n_in.div_ceil(self.group)
    }

    /// Rounds to unsigned codes of `bits` around a zero point of each group.
    pub(crate) fn round(
        values: &[f32],
        n_in: usize,
        group: usize,
        bits: u32,
        symmetric: bool,
    ) -> Self {
        let n_out = values.len() / n_in;
        let most = (1 << bits) - 1;
        let mut layer = Self {
            n_out,
            n_in,
            group,
            codes: vec![0; values.len()],
            scales: Vec::new(),
            zeros: Vec::new(),
        };
        for (out, row) in values.chunks_exact(n_in).enumerate() {
            for (g, part) in row.chunks(group).enumerate() {
                let low = part.iter().copied().fold(0.0_f32, f32::min);
                let high = part.iter().copied().fold(0.0_f32, f32::max);
                let span = if symmetric {
                    2.0 * high.max(-low)
                } else {
                    high - low
                };
                let scale = half::f16::from_f32(span / most as f32).to_f32();
                let zero = if symmetric {
                    1 << (bits - 1)
                } else {
                    // The first form of GPTQ cannot say zero.
                    ((-low / scale).round() as i32).clamp(1, most)
                };
                for (i, x) in part.iter().enumerate() {
                    let code = ((x / scale).round() as i32 + zero).clamp(0, most);
                    layer.codes[out * n_in + g * group + i] = code - zero;
                }
                layer.scales.push(scale);
                layer.zeros.push(zero);
            }
        }
        layer
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        let scale =
            |at: usize| self.scales[at / self.n_in * self.n_groups() + at % self.n_in / self.group];
        let codes = self.codes.iter().enumerate();
        codes.map(|(at, code)| *code as f32 * scale(at)).collect()
    }

    /// The stored, unsigned code.
    pub(crate) fn stored(&self, out: usize, i: usize) -> u32 {
        let zero = self.zeros[out * self.n_groups() + i / self.group];
        (self.codes[out * self.n_in + i] + zero) as u32
    }
}

pub(crate) fn words(words: Vec<u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

pub(crate) fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

pub(crate) fn halves(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    let half = |x| half::f16::from_f32(x).to_le_bytes();
    values.into_iter().flat_map(half).collect()
}

/// `[n_groups, n_out]` out of `[n_out, n_groups]`.
pub(crate) fn turned<T: Copy>(values: &[T], n_out: usize) -> Vec<T> {
    let n = values.len() / n_out;
    (0..values.len())
        .map(|at| values[at % n_out * n + at / n_out])
        .collect()
}

/// What a method stores for one layer.
pub(crate) type Write = fn(&mut Tensors, &str, &Layer);

/// 32 codes of `bits` as words. Those of three bits are laid out as the format's first packer
/// spells them: ten, and two bits of the next; its last, ten more, and one of the next; the rest.
fn pack(codes: &[u32], bits: u32) -> Vec<u32> {
    if bits == 3 {
        let run = |codes: &[u32], first: u32| {
            let placed = codes.iter().zip(0..);
            placed.fold(0, |word, (code, i)| word | code << (first + 3 * i))
        };
        return vec![
            run(&codes[..10], 0) | (codes[10] & 3) << 30,
            codes[10] >> 2 | run(&codes[11..21], 1) | (codes[21] & 1) << 31,
            codes[21] >> 1 | run(&codes[22..32], 2),
        ];
    }
    let word = |codes: &[u32]| codes.iter().rev().fold(0, |word, code| word << bits | code);
    codes.chunks(32 / bits as usize).map(word).collect()
}

/// All codes of a row, or of a column.
fn pack_all(codes: &[u32], bits: u32) -> Vec<u32> {
    let parts = codes.chunks(32);
    parts.flat_map(|part| pack(part, bits)).collect()
}

pub(crate) fn gptq(tensors: &mut Tensors, name: &str, layer: &Layer) {
    gptq_in::<4, 1>(tensors, name, layer);
}

/// `LESS`: what stored zero points lack.
pub(crate) fn gptq_in<const BITS: u32, const LESS: i32>(
    tensors: &mut Tensors,
    name: &str,
    layer: &Layer,
) {
    let (n_out, n_in, n_groups) = (layer.n_out, layer.n_in, layer.n_groups());
    let columns: Vec<u32> = (0..n_out)
        .flat_map(|out| {
            let codes: Vec<u32> = (0..n_in).map(|i| layer.stored(out, i)).collect();
            pack_all(&codes, BITS)
        })
        .collect();
    let n_words = columns.len() / n_out;
    let zeros: Vec<u32> = (0..n_groups)
        .flat_map(|g| {
            let zero = |out: usize| (layer.zeros[out * n_groups + g] - LESS) as u32;
            let zeros: Vec<u32> = (0..n_out).map(zero).collect();
            pack_all(&zeros, BITS)
        })
        .collect();
    let n_zeros = zeros.len() / n_groups;
    let mut put = |end: &str, dtype, shape: &[usize], bytes| {
        tensors.insert(format!("{name}.{end}"), (dtype, shape.to_vec(), bytes));
    };
    let weight = words(turned(&columns, n_out));
    put("qweight", Dtype::I32, &[n_words, n_out], weight);
    put("qzeros", Dtype::I32, &[n_groups, n_zeros], words(zeros));
    put(
        "scales",
        Dtype::F16,
        &[n_groups, n_out],
        halves(turned(&layer.scales, n_out)),
    );
    let groups = (0..n_in).map(|i| (i / layer.group) as u32).collect();
    put("g_idx", Dtype::I32, &[n_in], words(groups));
}

/// Inputs dealt out to groups in turn, as they are when they are quantized in an order of their
/// own.
pub(crate) fn gptq_in_order(tensors: &mut Tensors, name: &str, layer: &Layer) {
    gptq_in_order_in::<4, 1>(tensors, name, layer);
}

/// The same, as [`gptq_in`].
pub(crate) fn gptq_in_order_in<const BITS: u32, const LESS: i32>(
    tensors: &mut Tensors,
    name: &str,
    layer: &Layer,
) {
    gptq_in::<BITS, LESS>(tensors, name, layer);
    let n_groups = layer.n_groups() as u32;
    let groups = (0..layer.n_in as u32).map(|i| i % n_groups).collect();
    let entry = (Dtype::I32, vec![layer.n_in], words(groups));
    tensors.insert(format!("{name}.g_idx"), entry);
}

pub(crate) fn awq(tensors: &mut Tensors, name: &str, layer: &Layer) {
    // Nibble k of a word holds this one of its eight outputs.
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let (n_out, n_in, n_groups) = (layer.n_out, layer.n_in, layer.n_groups());
    let word = |code: &dyn Fn(usize) -> u32, first: usize| {
        let nibbles = ORDER.iter().enumerate();
        nibbles.fold(0, |word, (k, out)| word | code(first + out) << (4 * k))
    };
    let mut weight = Vec::new();
    for i in 0..n_in {
        weight.extend(
            (0..n_out)
                .step_by(8)
                .map(|out| word(&|out| layer.stored(out, i), out)),
        );
    }
    let mut zeros = Vec::new();
    for g in 0..n_groups {
        let zero = |out: usize| layer.zeros[out * n_groups + g] as u32;
        zeros.extend((0..n_out).step_by(8).map(|out| word(&zero, out)));
    }
    let mut put = |end: &str, dtype, shape: &[usize], bytes| {
        tensors.insert(format!("{name}.{end}"), (dtype, shape.to_vec(), bytes));
    };
    put("qweight", Dtype::I32, &[n_in, n_out / 8], words(weight));
    put("qzeros", Dtype::I32, &[n_groups, n_out / 8], words(zeros));
    put(
        "scales",
        Dtype::F16,
        &[n_groups, n_out],
        halves(turned(&layer.scales, n_out)),
    );
}

/// Four bits; zero points where they are not all in the middle.
pub(crate) fn packed(tensors: &mut Tensors, name: &str, layer: &Layer) {
    let (n_out, n_in, n_groups) = (layer.n_out, layer.n_in, layer.n_groups());
    let mut weight = vec![0_u32; n_out * n_in / 8];
    for out in 0..n_out {
        for i in 0..n_in {
            weight[out * n_in / 8 + i / 8] |= layer.stored(out, i) << (4 * (i % 8));
        }
    }
    let mut put = |end: &str, dtype, shape: &[usize], bytes| {
        tensors.insert(format!("{name}.{end}"), (dtype, shape.to_vec(), bytes));
    };
    put(
        "weight_packed",
        Dtype::I32,
        &[n_out, n_in / 8],
        words(weight),
    );
    put(
        "weight_scale",
        Dtype::F16,
        &[n_out, n_groups],
        halves(layer.scales.clone()),
    );
    let shape = [n_out as u64, n_in as u64].map(u64::to_le_bytes).concat();
    put("weight_shape", Dtype::I64, &[2], shape);
    if layer.zeros.iter().any(|zero| *zero != 8) {
        let mut zeros = vec![0_u32; n_out / 8 * n_groups];
        for out in 0..n_out {
            for g in 0..n_groups {
                let zero = layer.zeros[out * n_groups + g] as u32;
                zeros[out / 8 * n_groups + g] |= zero << (4 * (out % 8));
            }
        }
        put(
            "weight_zero_point",
            Dtype::I32,
            &[n_out / 8, n_groups],
            words(zeros),
        );
    }
}

pub(crate) fn int8(tensors: &mut Tensors, name: &str, layer: &Layer) {
    let bytes = layer.codes.iter().map(|code| *code as i8 as u8).collect();
    let shape = vec![layer.n_out, layer.n_in];
    tensors.insert(format!("{name}.weight"), (Dtype::I8, shape, bytes));
    let scale = (
        Dtype::F16,
        vec![layer.n_out, 1],
        halves(layer.scales.clone()),
    );
    tensors.insert(format!("{name}.weight_scale"), scale);
}
