// Activations as the tensor cores take them.
#include "common/group.cuh"
#include "common/reduce.cuh"

// Rows of 16-bit values, padded with zeros to whole chunks of 32. Grid: (rows).
template <class T>
DEVICE void convert(const float* x, int n_in, T* out) {
  const int padded = ceil_div(n_in, 32) * 32;
  const float* from = x + size_t(blockIdx.x) * n_in;
  T* to = out + size_t(blockIdx.x) * padded;
  for (int i = threadIdx.x; i < padded; i += blockDim.x) to[i] = T(i < n_in ? from[i] : 0.f);
}

KERNEL convert_rows_bf16(const float* x, int n_in, bf16* out) { convert(x, n_in, out); }

KERNEL convert_rows_f16(const float* x, int n_in, __half* out) { convert(x, n_in, out); }

// Int8 in groups of 32, scale = max |x| / 127, codes rounded to nearest even. A warp a group.
KERNEL quantize_rows(const float* x, int n_groups_total, int8_t* codes, GroupMeta* meta) {
  const int group = int(blockIdx.x) * (blockDim.x / 32) + warp_id(), lane = lane_id();
  if (group >= n_groups_total) return;
  const float value = x[size_t(group) * 32 + lane];
  const float largest = warp_max(fabsf(value));
  // Zero, unless a value is infinite or not a number: then the whole group is not.
  const float taint = warp_sum(value * 0.f);
  const float inverse = largest > 0.f ? 127.f / largest : 0.f;
  const float code = fminf(fmaxf(rintf(value * inverse), -127.f), 127.f);
  int sum = taint == 0.f ? int(code) : 0;
  // Quads t and t + 4 side by side: a lane of a fragment reads both at once.
  const int quad = lane / 4, place = quad % 4 * 2 + quad / 4;
  codes[size_t(group) * 32 + place * 4 + lane % 4] = int8_t(sum);
#pragma unroll
  for (int d = 8; d; d >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, d);
  const int high = __shfl_sync(ALL_LANES, sum, 16);
  if (lane == 0) meta[group] = GroupMeta{largest / 127.f + taint, short(sum), short(high)};
}
