//! Descriptions of tensors, and where their bytes are.

use std::collections::BTreeMap;
use std::ops::Range;

use kernels::WeightType;

use super::cursor::{Cursor, to_usize};

const MAX_DIMENSIONS: u32 = 4;

/// A tensor of the file.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub(super) ty: WeightType,
    /// Outermost dimension first (the file has them innermost first).
    pub(super) shape: Vec<usize>,
    /// In the file.
    pub(super) range: Range<usize>,
}

/// A tensor as described, before its bytes are looked for.
#[derive(Debug)]
pub(super) struct Described {
    name: String,
    ty: WeightType,
    shape: Vec<usize>,
    n_bytes: usize,
    /// From the start of the data.
    offset: u64,
}

pub(super) fn read_infos(cursor: &mut Cursor<'_>, n: u64) -> Result<Vec<Described>, String> {
    // The smallest description: an empty name, no dimensions, a type and an offset.
    cursor.check_count(n, 24, "tensor count")?;
    let mut infos = Vec::new();
    for index in 0..n {
        infos.push(read_info(cursor, index)?);
    }
    Ok(infos)
}

fn read_info(cursor: &mut Cursor<'_>, index: u64) -> Result<Described, String> {
    let name = cursor.string(&format!("name of tensor {index}"))?;
    let what = format!("tensor `{name}`");
    let n_dimensions = cursor.u32(&format!("dimension count of {what}"))?;
    if n_dimensions == 0 || n_dimensions > MAX_DIMENSIONS {
        return Err(format!(
            "{what}: {n_dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}"
        ));
    }
    let mut shape = Vec::new();
    for _ in 0..n_dimensions {
        let size = to_usize(cursor.u64(&format!("shape of {what}"))?, &what)?;
        if size == 0 {
            return Err(format!("{what}: a dimension is zero"));
        }
        shape.push(size);
    }
    shape.reverse();
    let ty = weight_type(cursor.u32(&format!("type of {what}"))?, &what)?;
    let offset = cursor.u64(&format!("offset of {what}"))?;
    let n_bytes = n_bytes(ty, &shape, &what)?;
    Ok(Described {
        name: name.to_string(),
        ty,
        shape,
        n_bytes,
        offset,
    })
}

fn n_bytes(ty: WeightType, shape: &[usize], what: &str) -> Result<usize, String> {
    let row = *shape.last().expect("at least one dimension");
    if !row.is_multiple_of(ty.block_elements()) {
        return Err(format!(
            "{what}: rows of {row} values cannot be {ty:?}, which has blocks of {}",
            ty.block_elements()
        ));
    }
    shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .and_then(|n| (n / ty.block_elements()).checked_mul(ty.block_bytes()))
        .ok_or_else(|| format!("{what}: shape {shape:?} is too large"))
}

/// Finds the bytes of every tensor in a file of `file_len` bytes.
pub(super) fn place(
    infos: Vec<Described>,
    data_start: usize,
    alignment: usize,
    file_len: usize,
) -> Result<BTreeMap<String, TensorInfo>, String> {
    let mut tensors = BTreeMap::new();
    for info in infos {
        let what = format!("tensor `{}`", info.name);
        let offset = to_usize(info.offset, &what)?;
        if !offset.is_multiple_of(alignment) {
            return Err(format!(
                "{what}: offset {offset} is not a multiple of the alignment {alignment}"
            ));
        }
        let end = data_start
            .checked_add(offset)
            .and_then(|start| start.checked_add(info.n_bytes))
            .filter(|&end| end <= file_len)
            .ok_or_else(|| {
                format!(
                    "truncated: {what} needs {} bytes at offset {offset} of the data, which \
                     begins at {data_start}, but the file has {file_len} bytes",
                    info.n_bytes
                )
            })?;
        let placed = TensorInfo {
            ty: info.ty,
            shape: info.shape,
            range: end - info.n_bytes..end,
        };
        if tensors.insert(info.name, placed).is_some() {
            return Err(format!("{what} occurs twice"));
        }
    }
    Ok(tensors)
}

/// GGUF's number of a type.
pub(super) fn type_number(ty: WeightType) -> u32 {
    match ty {
        WeightType::F32 => 0,
        WeightType::F16 => 1,
        WeightType::Q4_0 => 2,
        WeightType::Q4_1 => 3,
        WeightType::Q5_0 => 6,
        WeightType::Q5_1 => 7,
        WeightType::Q8_0 => 8,
        WeightType::Q2_K => 10,
        WeightType::Q3_K => 11,
        WeightType::Q4_K => 12,
        WeightType::Q5_K => 13,
        WeightType::Q6_K => 14,
        WeightType::IQ4_NL => 20,
        WeightType::BF16 => 30,
    }
}

/// The type of a number of GGUF's.
fn weight_type(number: u32, what: &str) -> Result<WeightType, String> {
    Ok(match number {
        0 => WeightType::F32,
        1 => WeightType::F16,
        2 => WeightType::Q4_0,
        3 => WeightType::Q4_1,
        6 => WeightType::Q5_0,
        7 => WeightType::Q5_1,
        8 => WeightType::Q8_0,
        10 => WeightType::Q2_K,
        11 => WeightType::Q3_K,
        12 => WeightType::Q4_K,
        13 => WeightType::Q5_K,
        14 => WeightType::Q6_K,
        20 => WeightType::IQ4_NL,
        30 => WeightType::BF16,
        other => {
            return Err(format!(
                "{what}: type {} is not supported; supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, \
                 Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL",
                unsupported_name(other)
            ));
        }
    })
}

fn unsupported_name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("number {other}"),
    };
    format!("{name} (number {number})")
}
