// What sampling needs of whole rows of logits, so that only a few numbers leave the device.
#include "common/reduce.cuh"

constexpr int WARPS = 8;

// Of each row: the largest logit (of equals the lowest index), its index, and the logarithm of
// the sum of exponentials. One block a row.
KERNEL __launch_bounds__(32 * WARPS)
summarize_logits(const float* logits, int n, uint32_t* best, float* largest, float* log_sum) {
  __shared__ float values[WARPS], scratch[WARPS];
  __shared__ int indices[WARPS];
  const float* row = logits + size_t(blockIdx.x) * n;
  float value = -INFINITY;
  int index = n;
  for (int i = threadIdx.x; i < n; i += 32 * WARPS) {
    if (row[i] > value || index == n) {
      value = row[i];
      index = i;
    }
  }
  auto take = [&](float other, int other_index) {
    if (other_index < n && (index == n || other > value || (other == value && other_index < index))) {
      value = other;
      index = other_index;
    }
  };
#pragma unroll
  for (int d = 16; d; d >>= 1) {
    take(__shfl_xor_sync(ALL_LANES, value, d), __shfl_xor_sync(ALL_LANES, index, d));
  }
  if (lane_id() == 0) {
    values[warp_id()] = value;
    indices[warp_id()] = index;
  }
  __syncthreads();
  value = -INFINITY;
  index = n;
  for (int i = 0; i < WARPS; i++) take(values[i], indices[i]);
  float sum = 0.f;
  for (int i = threadIdx.x; i < n; i += 32 * WARPS) sum += expf(row[i] - value);
  sum = block_sum<WARPS>(sum, scratch);
  if (threadIdx.x == 0) {
    best[blockIdx.x] = uint32_t(index);
    largest[blockIdx.x] = value;
    log_sum[blockIdx.x] = value + logf(sum);
  }
}

// logit[token] of pairs (row, token), repetition, presence and frequency penalties: a token that
// occurred has its logit divided (multiplied if negative) by `repetition` and lessened by
// `presence + count * frequency`. Grid: (ceil(pairs / 128)). No pair occurs twice.
struct Penalty {
  uint32_t row, token;
  float count, repetition, presence, frequency;
};

KERNEL apply_penalties(float* logits, int n, const Penalty* penalties, int n_penalties) {
  const int i = int(thread_of_grid());
  if (i >= n_penalties) return;
  const Penalty p = penalties[i];
  float& logit = logits[size_t(p.row) * n + p.token];
  const float x = logit > 0.f ? logit / p.repetition : logit * p.repetition;
  logit = x - (p.presence + p.count * p.frequency);
}

// Tokens whose bit is not set get no chance. `masks`: [rows][ceil(n / 32)] words; a row of
// `mask_of` below zero has none. One block a row.
KERNEL mask_logits(float* logits, int n, const uint32_t* masks, const int* mask_of) {
  const int mask = mask_of[blockIdx.x];
  if (mask < 0) return;
  const uint32_t* words = masks + size_t(mask) * ceil_div(n, 32);
  float* row = logits + size_t(blockIdx.x) * n;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    if (!(words[i / 32] >> (i % 32) & 1)) row[i] = -INFINITY;
  }
}
