// The paged cache: in each layer keys and values apart, `[n_blocks][n_kv_heads][block_size]
// [head_dim]`, so that what one head has in one block is one run.
#pragma once
#include <cuda_fp8.h>

#include "types.cuh"

using fp8 = __nv_fp8_storage_t;

// Where the position of a slot begins for a kv head.
DEVICE size_t kv_offset(uint32_t slot, int kv_head, int n_kv_heads, int block_size, int head_dim) {
  const uint32_t block = slot / block_size, offset = slot % block_size;
  return ((size_t(block) * n_kv_heads + kv_head) * block_size + offset) * head_dim;
}

DEVICE void store_kv(float& to, float x) { to = x; }
DEVICE void store_kv(bf16& to, float x) { to = __float2bfloat16_rn(x); }
// E4M3 without a scale: values beyond 448 become 448.
DEVICE void store_kv(fp8& to, float x) { to = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3); }

DEVICE float load_kv(float x) { return x; }
DEVICE float load_kv(bf16 x) { return __bfloat162float(x); }
DEVICE float load_kv(fp8 x) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(x, __NV_E4M3)));
}

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
