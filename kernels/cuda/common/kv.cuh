// The paged cache: in each layer keys and values apart, `[n_blocks][n_kv_heads][block_size]
// [head_dim]`, so that what one head has in one block is one run.
// Caches of 8 bits have a scale for what a head has in a slot, `[n_blocks][n_kv_heads]
// [block_size]`: codes and scales are those of the CPU's cache, bit for bit.
#pragma once
#include "types.cuh"

// Two's complement, from -127 to 127.
struct int8 {
  uint8_t bits;
};
// E4M3: a sign, four bits of exponent (bias 7), three of mantissa.
struct fp8 {
  uint8_t bits;
};

// Where the position of a slot begins for a kv head.
DEVICE size_t kv_offset(uint32_t slot, int kv_head, int n_kv_heads, int block_size, int head_dim) {
  const uint32_t block = slot / block_size, offset = slot % block_size;
  return ((size_t(block) * n_kv_heads + kv_head) * block_size + offset) * head_dim;
}

DEVICE void store_kv(float& to, float x) { to = x; }
DEVICE void store_kv(bf16& to, float x) { to = __float2bfloat16_rn(x); }
DEVICE void store_kv(int8& to, float x) {
  to.bits = uint8_t(min(max(__float2int_rn(x), -127), 127));
}
DEVICE void store_kv(fp8& to, float x) {
  const uint32_t sign = __float_as_uint(x) >> 31 << 7;
  const float size = fminf(fabsf(x), 448.f);
  uint32_t code;
  if (size < 0.015625f) {
    // Below the least normal value, codes count steps of 2^-9.
    code = uint32_t(__float2int_rn(__fmul_rn(size, 512.f)));
  } else {
    // Half of what is cut off is added, or a little less before an even code.
    const uint32_t bits = __float_as_uint(size);
    code = ((bits + 0x7ffffu + (bits >> 20 & 1)) >> 20) - (120u << 3);
  }
  to.bits = uint8_t(sign | code);
}

DEVICE float load_kv(float x) { return x; }
DEVICE float load_kv(bf16 x) { return __bfloat162float(x); }
DEVICE float load_kv(int8 x) { return float(int8_t(x.bits)); }
// Moved to the places of an f16, the same bits mean the value times 2^-8, which scales undo.
DEVICE float load_kv(fp8 x) {
  const uint32_t half = uint32_t(x.bits & 0x80) << 8 | uint32_t(x.bits & 0x7f) << 7;
  return __half2float(__ushort_as_half(uint16_t(half)));
}

// Of types with scales: what the largest value of a head in a slot becomes, and what a loaded
// value is too small by.
template <class KV>
struct Scaled {
  static constexpr bool YES = false;
  static constexpr float MOST = 1.f, UNIT = 1.f;
};
template <>
struct Scaled<int8> {
  static constexpr bool YES = true;
  static constexpr float MOST = 127.f, UNIT = 1.f;
};
template <>
struct Scaled<fp8> {
  static constexpr bool YES = true;
  static constexpr float MOST = 448.f, UNIT = 256.f;
};

// Query rows of one sequence: `AttentionRow`. The block of position p is entry
// `table + p / block_size` of the tables of all; `table` may be negative, since blocks that no
// row sees are left out.
struct SequenceRows {
  uint32_t first_row, n_rows, start;
  int table;
};

// What else decides how a query weighs positions; a window or cap of 0 is none.
struct Scoring {
  float scale, cap;
  int window;
  const float* slopes;
  const float* sinks;
};
