// Attention of single rows in f32: what kernels of all caches and heads are given.
#pragma once
#include "kv.cuh"
#include "math.cuh"

constexpr int WARPS = 4;
struct RowsArgs {
  const float* q;
  const void* keys;
  const void* values;
  const SequenceRows* sequences;
  // Of each query row.
  const uint32_t* sequence_of;
  const uint32_t* tables;
  float* out;
  int n_heads, n_kv_heads, head_dim, block_size;
  Scoring scoring;
  // Null where the type has none.
  const float* key_scales;
  const float* value_scales;
};
