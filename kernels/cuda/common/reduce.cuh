// Sums and maxima over a warp and a block, in an order that does not depend on the data.
#pragma once
#include "types.cuh"

DEVICE float warp_sum(float x) {
#pragma unroll
  for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(ALL_LANES, x, d);
  return x;
}

DEVICE float warp_max(float x) {
#pragma unroll
  for (int d = 16; d; d >>= 1) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, d));
  return x;
}

// The sum over a block of WARPS warps, for all threads. `scratch`: WARPS floats, free again
// after the next barrier.
template <int WARPS>
DEVICE float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  if (lane_id() == 0) scratch[warp_id()] = x;
  __syncthreads();
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS; i++) sum += scratch[i];
  return sum;
}
