//! A matrix in another storage type, in memory.

use kernels::{WeightType, dequantize, quantize};

/// Rows of one thread's share are at least as many values.
const LEAST_SHARE: usize = 1 << 16;

/// Stores rows of `n_in` values, of type `from`, as type `to`, rounding to nearest.
///
/// # Errors
/// A value is not a number and `to` has blocks, in which it would spoil others.
pub(crate) fn recode(
    from: WeightType,
    bytes: &[u8],
    n_in: usize,
    to: WeightType,
) -> Result<Vec<u8>, String> {
    let row_bytes = |ty: WeightType| n_in / ty.block_elements() * ty.block_bytes();
    let (from_row, to_row) = (row_bytes(from), row_bytes(to));
    if from_row == 0 {
        return Ok(Vec::new());
    }
    let n_rows = bytes.len() / from_row;
    let mut out = vec![0; n_rows * to_row];
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = n_rows.div_ceil(n_threads).max(LEAST_SHARE.div_ceil(n_in));
    std::thread::scope(|scope| {
        let parts = bytes
            .chunks(share * from_row)
            .zip(out.chunks_mut(share * to_row));
        let workers: Vec<_> = parts
            .map(|(bytes, out)| scope.spawn(move || recode_rows(from, bytes, n_in, to, out)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err("a thread that encodes it failed".to_string()))
        })
    })?;
    Ok(out)
}

fn recode_rows(
    from: WeightType,
    bytes: &[u8],
    n_in: usize,
    to: WeightType,
    out: &mut [u8],
) -> Result<(), String> {
    let from_row = n_in / from.block_elements() * from.block_bytes();
    let to_row = n_in / to.block_elements() * to.block_bytes();
    let mut values = vec![0.0; n_in];
    let rows = bytes
        .chunks_exact(from_row)
        .zip(out.chunks_exact_mut(to_row));
    for (bytes, out) in rows {
        dequantize(from, bytes, &mut values);
        if to.is_quantized()
            && let Some(x) = values.iter().find(|x| !x.is_finite())
        {
            return Err(format!("{x} cannot be quantized"));
        }
        quantize(to, &values, out);
    }
    Ok(())
}
