//! Which type each tensor is stored in when a model is quantized.
//!
//! The rules follow the habit of llama.cpp: vectors, norms, routers and tables of positions stay
//! in f32, because they are small and touch everything; the embedding and the head get more bits
//! than the rest, because their errors reach every token; rows that do not divide into a
//! format's blocks get the next larger format with smaller blocks.

use kernels::WeightType;

/// What a matrix is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Most of the model.
    Linear,
    /// The embedding or the head.
    Table,
    /// Stays exact.
    Exact,
}

/// Types that a model can be stored in, by the names that the command line has for them.
pub const WEIGHT_TYPES: &[(&str, WeightType)] = &[
    ("f32", WeightType::F32),
    ("f16", WeightType::F16),
    ("bf16", WeightType::BF16),
    ("q8_0", WeightType::Q8_0),
    ("q6_k", WeightType::Q6_K),
    ("q5_k", WeightType::Q5_K),
    ("q5_1", WeightType::Q5_1),
    ("q5_0", WeightType::Q5_0),
    ("q4_k", WeightType::Q4_K),
    ("q4_1", WeightType::Q4_1),
    ("q4_0", WeightType::Q4_0),
    ("iq4_nl", WeightType::IQ4_NL),
    ("q3_k", WeightType::Q3_K),
    ("q2_k", WeightType::Q2_K),
];

/// The type for a matrix of rows of `n_in` values that is stored as `stored`, in a model of
/// type `wanted`.
pub(crate) fn type_for(
    wanted: WeightType,
    role: Role,
    n_in: usize,
    stored: WeightType,
) -> WeightType {
    if !wanted.is_quantized() {
        return if role == Role::Exact && wanted != WeightType::F32 {
            WeightType::F32
        } else {
            wanted
        };
    }
    let wanted = match role {
        Role::Exact => return WeightType::F32,
        Role::Linear => wanted,
        Role::Table if bits(wanted) < bits(WeightType::Q6_K) => WeightType::Q6_K,
        Role::Table => wanted,
    };
    let mut ty = wanted;
    while !n_in.is_multiple_of(ty.block_elements()) {
        ty = match ty {
            WeightType::Q6_K => WeightType::Q8_0,
            WeightType::Q5_K => WeightType::Q5_1,
            WeightType::Q4_K => WeightType::Q5_0,
            WeightType::Q3_K | WeightType::Q2_K => WeightType::IQ4_NL,
            // Not even blocks of 32.
            _ => {
                return if stored.is_quantized() {
                    WeightType::F16
                } else {
                    stored
                };
            }
        };
    }
    ty
}

/// Eighths of a bit that a value takes.
fn bits(ty: WeightType) -> usize {
    64 * ty.block_bytes() / ty.block_elements()
}

/// The role of a tensor by its name in GGUF files.
pub(crate) fn role_of(name: &str, shape: &[usize]) -> Role {
    let layer_name = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(name, |(_, rest)| rest);
    let exact = [
        "ffn_gate_inp",
        "position_embd",
        "rope_",
        "exp_probs_b",
        "attn_sinks",
    ];
    let is_vector = shape.len() < 2 || layer_name.ends_with(".bias");
    if is_vector
        || layer_name.contains("norm")
        || exact.iter().any(|start| layer_name.starts_with(start))
    {
        return Role::Exact;
    }
    if matches!(layer_name, "token_embd.weight" | "output.weight") {
        return Role::Table;
    }
    Role::Linear
}

/// `general.file_type`: llama.cpp's number for what most tensors are.
pub(super) fn file_type(ty: WeightType) -> u32 {
    match ty {
        WeightType::F32 => 0,
        WeightType::F16 => 1,
        WeightType::Q4_0 => 2,
        WeightType::Q4_1 => 3,
        WeightType::Q8_0 => 7,
        WeightType::Q5_0 => 8,
        WeightType::Q5_1 => 9,
        WeightType::Q2_K => 10,
        WeightType::Q3_K => 11,
        WeightType::Q4_K => 14,
        WeightType::Q5_K => 16,
        WeightType::Q6_K => 18,
        WeightType::IQ4_NL => 25,
        WeightType::BF16 => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_get_more_bits_and_odd_rows_smaller_blocks() {
        let linear = |wanted, n_in| type_for(wanted, Role::Linear, n_in, WeightType::BF16);
        let table = |wanted, n_in| type_for(wanted, Role::Table, n_in, WeightType::BF16);
        assert_eq!(linear(WeightType::Q4_K, 512), WeightType::Q4_K);
        assert_eq!(linear(WeightType::Q4_K, 96), WeightType::Q5_0);
        assert_eq!(linear(WeightType::Q2_K, 96), WeightType::IQ4_NL);
        assert_eq!(linear(WeightType::Q4_0, 40), WeightType::BF16);
        assert_eq!(table(WeightType::Q4_0, 512), WeightType::Q6_K);
        assert_eq!(table(WeightType::Q4_0, 96), WeightType::Q8_0);
        assert_eq!(table(WeightType::Q8_0, 512), WeightType::Q8_0);
        let exact = type_for(WeightType::F16, Role::Exact, 64, WeightType::BF16);
        assert_eq!(exact, WeightType::F32);
    }

    #[test]
    fn roles_are_known_by_name() {
        let matrix = &[64, 64];
        assert_eq!(role_of("blk.3.ffn_down.weight", matrix), Role::Linear);
        assert_eq!(role_of("blk.3.ffn_gate_inp.weight", matrix), Role::Exact);
        assert_eq!(role_of("blk.3.ffn_gate_exps.bias", matrix), Role::Exact);
        assert_eq!(role_of("blk.3.attn_norm.weight", &[64]), Role::Exact);
        assert_eq!(role_of("output.weight", matrix), Role::Table);
        assert_eq!(role_of("output_norm.weight", &[64]), Role::Exact);
    }
}
