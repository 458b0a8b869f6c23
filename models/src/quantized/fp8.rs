//! Floats of eight bits (E4M3) times a scale of the tensor, of each row, or of blocks of both
//! dimensions.
//!
//! No block format has such values, so they are widened.

use safetensors::Dtype;

use super::{Assembled, Wanted};
use crate::LoadError;
use crate::lookup::Lookup;

/// `weight` with `weight_scale` or, as DeepSeek calls the same, `weight_scale_inv`.
pub(super) fn assemble(
    lookup: &Lookup<'_>,
    wanted: Wanted<'_>,
) -> Result<Option<Assembled>, LoadError> {
    let (n_out, n_in) = (wanted.n_out, wanted.n_in);
    let name = wanted.name;
    if wanted.expert.is_some() || !lookup.has(name) || lookup.peek(name)?.dtype != Dtype::F8_E4M3 {
        return Ok(None);
    }
    let tensor = lookup
        .raw(name)?
        .expect(name, &[Dtype::F8_E4M3], &[n_out, n_in])?;
    let names = ["weight_scale_inv", "weight_scale"].map(|end| format!("{}.{end}", wanted.layer()));
    let scale_name = names
        .iter()
        .find(|name| lookup.has(name))
        .unwrap_or(&names[1]);
    let scale = lookup.raw(scale_name)?;
    let scales = scale.floats(scale_name)?;
    // How many rows and columns one scale is for.
    let [rows, columns] = match *scale.shape {
        [] | [1] | [1, 1] => [n_out, n_in],
        [n] | [n, 1] if n == n_out => [1, n_in],
        // Blocks are square, and powers of two; the last ones may be cut off.
        [n, m] if n > 0 && m > 0 => {
            let side = n_out.div_ceil(n).max(n_in.div_ceil(m)).next_power_of_two();
            if [n_out.div_ceil(side), n_in.div_ceil(side)] != [n, m] {
                return Err(scale.error(scale_name, unfit(scale.shape, n_out, n_in)));
            }
            [side, side]
        }
        _ => return Err(scale.error(scale_name, unfit(scale.shape, n_out, n_in))),
    };
    // Static scales of activations: activations are not rounded here.
    for end in ["input_scale", "k_scale", "v_scale"] {
        lookup.ignore(&format!("{}.{end}", wanted.layer()));
    }
    let n_columns = n_in.div_ceil(columns);
    let value = |(at, byte): (usize, &u8)| {
        let (row, i) = (at / n_in, at % n_in);
        e4m3(*byte) * scales[row / rows * n_columns + i / columns]
    };
    let values: Vec<f32> = tensor.bytes.iter().enumerate().map(value).collect();
    Ok(Some(wanted.widened(&values)))
}

fn unfit(shape: &[usize], n_out: usize, n_in: usize) -> String {
    format!(
        "scales of shape {shape:?} are neither one, nor one for each of {n_out} rows, nor of \
         square blocks of {n_out}x{n_in}"
    )
}

/// Sign, four bits of exponent (bias 7), three of fraction; no infinities.
pub(super) fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2.0_f32.powi(-9),
        _ => (1.0 + fraction / 8.0) * 2.0_f32.powi(exponent - 7),
    };
    sign * size
}

#[cfg(test)]
mod tests {
    use super::e4m3;

    #[test]
    fn the_ends_of_the_range() {
        for (byte, value) in [(0, 0.0), (1, 1.0 / 512.0), (8, 1.0 / 64.0), (0x38, 1.0)] {
            assert_eq!(e4m3(byte), value);
        }
        assert_eq!(e4m3(0x7e), 448.0);
        assert_eq!(e4m3(0xfe), -448.0);
        assert!(e4m3(0x7f).is_nan());
    }
}
