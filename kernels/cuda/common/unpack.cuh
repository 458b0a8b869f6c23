// One value of packed weights of any format, exactly: for tables and for plain f32 sums.
#pragma once
#include "quant.cuh"

// Codes of `WeightType`, as launches give them.
enum FormatCode : int {
  F_F32, F_F16, F_BF16, F_Q4_0, F_Q4_1, F_Q5_0, F_Q5_1, F_Q8_0, F_Q2_K, F_Q3_K, F_Q4_K, F_Q5_K,
  F_Q6_K, F_IQ4_NL
};

// Value (column, k) of a tile of a block format.
template <class F>
DEVICE float unpack_quant(const uint8_t* table, const uint8_t* scales, int n_in, int row, int k) {
  const int n_groups = n_in / 32, group = k / 32, tile = row / 16, column = row % 16;
  const int quad = k % 32 / 4;
  const uint32_t* lines = reinterpret_cast<const uint32_t*>(table + tile * F::tile_lines(n_groups)) +
                          size_t(group) * F::LINES * 16;
  const Words<F> words = load_words<F>(lines, column, quad % 4);
  const uint32_t codes = quad_of<F>(words, quad % 4, quad / 4);
  const Scales s = load_scales<F>(scales + tile * F::tile_scales(n_groups), group, column);
  const int code = int(codes >> (8 * (k % 4)) & 0xff) - F::ZERO;
  const bool second = k % 32 >= 16;
  // The product is exact, so it does not matter whether the sum is fused.
  return (second ? s.scale[1] : s.scale[0]) * float(code) + (second ? s.min[1] : s.min[0]);
}

// Dense 16-bit weights: tiles of 16 rows, chunks of 32 inputs, `[tile][chunk][16][32]`, the parts
// of 16 bytes of a row exchanged.
template <class T>
DEVICE T unpack_dense(const uint8_t* table, int n_in, int row, int k) {
  const size_t chunk = size_t(row / 16) * ceil_div(n_in, 32) + k / 32;
  const int at = swizzled(row % 16, k % 32 / 8) * 8 + k % 8;
  return reinterpret_cast<const T*>(table)[(chunk * 16 + row % 16) * 32 + at];
}

DEVICE float unpack_value(int format, const uint8_t* table, const uint8_t* scales, int n_in,
                          int row, int k) {
  switch (format) {
    // [tile][n_in][16].
    case F_F32:
      return reinterpret_cast<const float*>(table)[(size_t(row / 16) * n_in + k) * 16 + row % 16];
    case F_F16: return __half2float(unpack_dense<__half>(table, n_in, row, k));
    case F_BF16: return __bfloat162float(unpack_dense<bf16>(table, n_in, row, k));
    case F_Q4_0: return unpack_quant<Q4_0>(table, scales, n_in, row, k);
    case F_Q4_1: return unpack_quant<Q4_1>(table, scales, n_in, row, k);
    case F_Q5_0: return unpack_quant<Q5_0>(table, scales, n_in, row, k);
    case F_Q5_1: return unpack_quant<Q5_1>(table, scales, n_in, row, k);
    case F_Q8_0: return unpack_quant<Q8_0>(table, scales, n_in, row, k);
    case F_Q2_K: return unpack_quant<Q2_K>(table, scales, n_in, row, k);
    case F_Q3_K: return unpack_quant<Q3_K>(table, scales, n_in, row, k);
    case F_Q4_K: return unpack_quant<Q4_K>(table, scales, n_in, row, k);
    case F_Q5_K: return unpack_quant<Q5_K>(table, scales, n_in, row, k);
    case F_Q6_K: return unpack_quant<Q6_K>(table, scales, n_in, row, k);
    default: return unpack_quant<IQ4_NL>(table, scales, n_in, row, k);
  }
}
