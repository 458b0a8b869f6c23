// Causal attention of ragged rows over the paged cache on tensor cores; see
// common/attention.cuh.
#include "common/attention.cuh"

#define ATTENTION(DIM, POSITIONS)                                                                \
  KERNEL __launch_bounds__(128, 2) attention_##DIM(AttentionArgs a) {                            \
    attention<DIM, POSITIONS>(a);                                                                \
  }

ATTENTION(64, 64)
ATTENTION(80, 64)
ATTENTION(96, 64)
ATTENTION(128, 64)
ATTENTION(256, 32)

// Puts the splits of an item together, in order; a warp a row. Grid: (items, kv heads).
KERNEL __launch_bounds__(128) attention_combine(AttentionArgs a, const CombineItem* items) {
  const CombineItem item = items[blockIdx.x];
  const SequenceRows rows = a.sequences[item.sequence];
  const int group = a.n_heads / a.n_kv_heads, kv_head = blockIdx.y;
  for (int i = warp_id(); i < item.n_packed; i += 4) {
    const int packed = item.first_packed + i, head = kv_head * group + packed % group;
    float max = -INFINITY, sum = 0.f;
    Merge merge;
    for (int d = lane_id(); d < a.head_dim; d += 32) {
      float out = 0.f;
      max = -INFINITY;
      sum = 0.f;
      for (int part = 0; part < item.n_parts; part++) {
        const size_t at = size_t(item.first_part + part * item.n_packed + i) * a.n_kv_heads + kv_head;
        merge.begin(max, sum, a.part_max[at], a.part_sum[at]);
        out = merge.value(out, a.part_out[at * a.head_dim + d]);
      }
      const float share = last_factor(a, head, max, sum);
      const size_t row = rows.first_row + packed / group;
      a.out[(row * a.n_heads + head) * a.head_dim + d] = __fmul_rn(out, share);
    }
  }
}
