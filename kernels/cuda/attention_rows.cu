// Attention for what `attention.cu` does not take: f32 and 8-bit caches and odd head dimensions.
// f32 throughout. A block takes one query row and head; each of its warps takes every fourth
// tile of 32 positions, counted from position 0, and the four are merged in order, so that a row
// does not see the chunk it came in.
#include "common/attention_rows.cuh"
#include "common/reduce.cuh"

// Values of a head that a lane holds at most.
constexpr int MAX_PER_LANE = 18;

// Running sums of a warp: of weights, and of weighted values.
struct Sums {
  float max, sum, out[MAX_PER_LANE];
};

template <class KV>
DEVICE void one_position(const RowsArgs& a, uint32_t slot, int kv_head, int behind, float slope,
                         const float (&q)[MAX_PER_LANE], Sums& s) {
  const size_t offset = kv_offset(slot, kv_head, a.n_kv_heads, a.block_size, a.head_dim);
  const KV* keys = static_cast<const KV*>(a.keys) + offset;
  const KV* values = static_cast<const KV*>(a.values) + offset;
  float key_scale = 1.f, value_scale = 1.f;
  if (Scaled<KV>::YES) {
    const size_t at = kv_offset(slot, kv_head, a.n_kv_heads, a.block_size, 1);
    key_scale = a.key_scales[at];
    value_scale = a.value_scales[at];
  }
  float score = 0.f;
#pragma unroll
  for (int i = 0; i < MAX_PER_LANE; i++) {
    const int d = lane_id() + 32 * i;
    if (d < a.head_dim) score = fmaf(q[i], load_kv(keys[d]), score);
  }
  score = warp_sum(score) * key_scale;
  score = softcap(score * a.scoring.scale, a.scoring.cap) - slope * float(behind);
  const float max = fmaxf(s.max, score), factor = expf(s.max - max), weight = expf(score - max);
  s.max = max;
  s.sum = fmaf(s.sum, factor, weight);
  const float of_values = weight * value_scale;
#pragma unroll
  for (int i = 0; i < MAX_PER_LANE; i++) {
    const int d = lane_id() + 32 * i;
    if (d < a.head_dim) s.out[i] = fmaf(of_values, load_kv(values[d]), s.out[i] * factor);
  }
}

// Merges the sums of the warps, in order, and the sink. `shared`: [WARPS][head_dim + 2].
DEVICE void merge(const RowsArgs& a, int head, const Sums& s, float* shared, float* out) {
  const int stride = a.head_dim + 2;
  float* mine = shared + warp_id() * stride;
#pragma unroll
  for (int i = 0; i < MAX_PER_LANE; i++) {
    const int d = lane_id() + 32 * i;
    if (d < a.head_dim) mine[2 + d] = s.out[i];
  }
  if (lane_id() == 0) {
    mine[0] = s.max;
    mine[1] = s.sum;
  }
  __syncthreads();
  float max = a.scoring.sinks ? a.scoring.sinks[head] : -INFINITY;
  for (int w = 0; w < WARPS; w++) max = fmaxf(max, shared[w * stride]);
  float sum = a.scoring.sinks ? expf(a.scoring.sinks[head] - max) : 0.f;
  for (int w = 0; w < WARPS; w++) {
    sum = fmaf(shared[w * stride + 1], expf(shared[w * stride] - max), sum);
  }
  for (int d = threadIdx.x; d < a.head_dim; d += 32 * WARPS) {
    float total = 0.f;
    for (int w = 0; w < WARPS; w++) {
      total = fmaf(shared[w * stride + 2 + d], expf(shared[w * stride] - max), total);
    }
    out[d] = total / sum;
  }
}

// Grid: (query rows, heads).
template <class KV>
DEVICE void attention_rows(const RowsArgs& a) {
  extern __shared__ float shared[];
  const int row = blockIdx.x, head = blockIdx.y, kv_head = head / (a.n_heads / a.n_kv_heads);
  const SequenceRows rows = a.sequences[a.sequence_of[row]];
  const int position = int(rows.start) + row - int(rows.first_row);
  const size_t at = (size_t(row) * a.n_heads + head) * a.head_dim;
  const float slope = a.scoring.slopes ? a.scoring.slopes[head] : 0.f;
  float q[MAX_PER_LANE];
  Sums s;
  s.max = -INFINITY;
  s.sum = 0.f;
#pragma unroll
  for (int i = 0; i < MAX_PER_LANE; i++) {
    const int d = lane_id() + 32 * i;
    q[i] = d < a.head_dim ? a.q[at + d] : 0.f;
    s.out[i] = 0.f;
  }
  const int lowest = a.scoring.window ? max(0, position - a.scoring.window + 1) : 0;
  for (int tile = lowest / 32; tile * 32 <= position; tile++) {
    if (tile % WARPS != warp_id()) continue;
    const int end = min(tile * 32 + 31, position);
    for (int p = max(tile * 32, lowest); p <= end; p++) {
      const uint32_t block = a.tables[rows.table + p / a.block_size];
      const uint32_t slot = block * a.block_size + p % a.block_size;
      one_position<KV>(a, slot, kv_head, position - p, slope, q, s);
    }
  }
  merge(a, head, s, shared, a.out + at);
}

KERNEL __launch_bounds__(128) attention_rows_f32(RowsArgs a) { attention_rows<float>(a); }
KERNEL __launch_bounds__(128) attention_rows_bf16(RowsArgs a) { attention_rows<bf16>(a); }
KERNEL __launch_bounds__(128) attention_rows_int8(RowsArgs a) { attention_rows<int8>(a); }
KERNEL __launch_bounds__(128) attention_rows_fp8(RowsArgs a) { attention_rows<fp8>(a); }
