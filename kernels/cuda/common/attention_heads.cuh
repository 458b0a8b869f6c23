// Attention of single rows over caches of 8 bits, for heads of 64, 128 and 256 values: the query
// heads that share a kv head are computed together, so that its keys and values are read and
// widened once for up to four of them.
//
// Lanes of a warp share positions: a lane holds 16 values of a head (one load of 16 bytes), so
// D / 16 lanes make a position and a warp takes 512 / D positions at once. Each of the four warps
// takes every fourth tile of 32 positions, counted from position 0; which lane meets a position
// in which turn is fixed by its number, and the warps are merged in order: a row does not see the
// chunk it came in. f32 throughout.
#pragma once
#include "attention_rows.cuh"
#include "ptx.cuh"

// Query heads of a block.
constexpr int HEADS = 4;

// Sixteen codes as numbers: four words of four.
DEVICE void load_codes(const int8* from, float (&to)[16]) {
  const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
  const uint32_t of[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 16; i++) to[i] = float(int8_t(of[i / 4] >> 8 * (i % 4)));
}

// As `load_kv` has them, two at once: bits of two codes to the places of two f16.
DEVICE void load_codes(const fp8* from, float (&to)[16]) {
  const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
  const uint32_t of[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const uint32_t codes = __byte_perm(of[i / 2], 0, i % 2 ? 0x3424 : 0x1404);
    const uint32_t halves = (codes & 0x80008000u) | (codes & 0x7f007f00u) >> 1;
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&halves));
    to[2 * i] = pair.x;
    to[2 * i + 1] = pair.y;
  }
}

// What a lane has of all heads: its values of the query and of the sums, the greatest score of
// the warp so far (in units of log2), and the weights of the lane's positions.
struct HeadSums {
  float q[HEADS][16], out[HEADS][16], max[HEADS], sum[HEADS];
};

// The positions of a tile from `first` on, STEPS at a lane; `run` and the scales are those of
// position `lane` of the tile, which is visible where its bit is set.
template <class KV, int D, int STEPS>
DEVICE void take_positions(const RowsArgs& a, HeadSums& s, int n_heads, const float (&slope)[HEADS],
                           int first, int behind, uint32_t visible, uint32_t run, float2 scales) {
  constexpr int AT_ONCE = 512 / D;
  const int sub = lane_id() % AT_ONCE, part = lane_id() / AT_ONCE * 16;
  float score[HEADS][STEPS], codes[16] = {};
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
    const int at = first + i * AT_ONCE + sub;
    const size_t from = size_t(__shfl_sync(ALL_LANES, run, at)) * D + part;
    const float scale = __shfl_sync(ALL_LANES, scales.x, at);
    const bool seen = visible >> at & 1;
    if (seen) load_codes(static_cast<const KV*>(a.keys) + from, codes);
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      if (h >= n_heads) break;
      float x = 0.f;
#pragma unroll
      for (int k = 0; k < 16; k++) x = fmaf(s.q[h][k], codes[k], x);
#pragma unroll
      for (int d = AT_ONCE; d < 32; d *= 2) x += __shfl_xor_sync(ALL_LANES, x, d);
      x = softcap(x * scale * a.scoring.scale, a.scoring.cap) - slope[h] * float(behind - at);
      score[h][i] = seen ? x * LOG2_E : -INFINITY;
    }
  }
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    if (h >= n_heads) break;
    float max = s.max[h];
#pragma unroll
    for (int i = 0; i < STEPS; i++) max = fmaxf(max, score[h][i]);
#pragma unroll
    for (int d = 1; d < AT_ONCE; d *= 2) max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, d));
    const float base = max == -INFINITY ? 0.f : max, factor = exp2_fast(s.max[h] - base);
    s.max[h] = max;
    s.sum[h] *= factor;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      score[h][i] = exp2_fast(score[h][i] - base);
      s.sum[h] += score[h][i];
    }
#pragma unroll
    for (int k = 0; k < 16; k++) s.out[h][k] *= factor;
  }
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
    const int at = first + i * AT_ONCE + sub;
    const size_t from = size_t(__shfl_sync(ALL_LANES, run, at)) * D + part;
    const float scale = __shfl_sync(ALL_LANES, scales.y, at);
    if (!(visible >> at & 1)) continue;
    load_codes(static_cast<const KV*>(a.values) + from, codes);
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      if (h >= n_heads) break;
      const float weight = score[h][i] * scale;
#pragma unroll
      for (int k = 0; k < 16; k++) s.out[h][k] = fmaf(weight, codes[k], s.out[h][k]);
    }
  }
}

// Puts a warp's sums of a head together and into its place: maximum, sum, two spare, values.
template <int D>
DEVICE void put_head(HeadSums& s, int h, float* to) {
  constexpr int AT_ONCE = 512 / D;
  const int sub = lane_id() % AT_ONCE, part = lane_id() / AT_ONCE * 16;
#pragma unroll
  for (int d = 1; d < AT_ONCE; d *= 2) {
    s.sum[h] += __shfl_xor_sync(ALL_LANES, s.sum[h], d);
#pragma unroll
    for (int k = 0; k < 16; k++) s.out[h][k] += __shfl_xor_sync(ALL_LANES, s.out[h][k], d);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (i % AT_ONCE != sub) continue;
    const float* out = &s.out[h][4 * i];
    *reinterpret_cast<float4*>(to + 4 + part + 4 * i) = make_float4(out[0], out[1], out[2], out[3]);
  }
  if (lane_id() == 0) {
    to[0] = s.max[h];
    to[1] = s.sum[h];
  }
}

// Grid: (query rows, kv heads times blocks of HEADS query heads). Dynamic shared memory:
// [WARPS][HEADS][D + 4].
template <class KV, int D>
DEVICE void attention_heads(const RowsArgs& a) {
  constexpr int STEPS = D == 64 ? 4 : 8, STRIDE = D + 4;
  extern __shared__ __align__(16) float shared[];
  const int group = a.n_heads / a.n_kv_heads, n_blocks = ceil_div(group, HEADS);
  const int row = blockIdx.x, kv_head = int(blockIdx.y) / n_blocks;
  const int of_group = int(blockIdx.y) % n_blocks * HEADS, n_heads = min(HEADS, group - of_group);
  const int head = kv_head * group + of_group, lane = lane_id();
  const SequenceRows rows = a.sequences[a.sequence_of[row]];
  const int position = int(rows.start) + row - int(rows.first_row);
  const size_t at = (size_t(row) * a.n_heads + head) * D;

  HeadSums s;
  float slope[HEADS];
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    s.max[h] = -INFINITY;
    s.sum[h] = slope[h] = 0.f;
#pragma unroll
    for (int k = 0; k < 16; k++) s.out[h][k] = s.q[h][k] = 0.f;
    if (h >= n_heads) continue;
    if (a.scoring.slopes) slope[h] = a.scoring.slopes[head + h];
    const float4* q = reinterpret_cast<const float4*>(a.q + at + h * D + lane / (512 / D) * 16);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float4 x = q[i];
      s.q[h][4 * i] = x.x;
      s.q[h][4 * i + 1] = x.y;
      s.q[h][4 * i + 2] = x.z;
      s.q[h][4 * i + 3] = x.w;
    }
  }

  const int lowest = a.scoring.window ? max(0, position - a.scoring.window + 1) : 0;
#pragma unroll 1
  for (int tile = lowest / 32; tile * 32 <= position; tile++) {
    if (tile % WARPS != warp_id()) continue;
    const int mine = tile * 32 + lane;
    const bool is_visible = mine >= lowest && mine <= position;
    uint32_t run = 0;
    float2 scales = make_float2(0.f, 0.f);
    if (is_visible) {
      const uint32_t block = a.tables[rows.table + mine / a.block_size];
      run = (block * a.n_kv_heads + kv_head) * a.block_size + mine % a.block_size;
      scales = make_float2(a.key_scales[run], a.value_scales[run]);
    }
    const uint32_t visible = __ballot_sync(ALL_LANES, is_visible);
    const int behind = position - tile * 32;
#pragma unroll 1
    for (int first = 0; first < 32; first += STEPS * (512 / D)) {
      take_positions<KV, D, STEPS>(a, s, n_heads, slope, first, behind, visible, run, scales);
    }
  }

#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    if (h < n_heads) put_head<D>(s, h, shared + (warp_id() * HEADS + h) * STRIDE);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n_heads * D; i += 32 * WARPS) {
    const float* from = shared + i / D * STRIDE;
    const float sink = a.scoring.sinks ? a.scoring.sinks[head + i / D] * LOG2_E : -INFINITY;
    float max = sink, sum = 0.f, total = 0.f;
    for (int w = 0; w < WARPS; w++) max = fmaxf(max, from[w * HEADS * STRIDE]);
    if (a.scoring.sinks) sum = exp2_fast(sink - max);
    for (int w = 0; w < WARPS; w++) {
      const float* of_warp = from + w * HEADS * STRIDE;
      const float factor = exp2_fast(of_warp[0] - max);
      sum = fmaf(of_warp[1], factor, sum);
      total = fmaf(of_warp[4 + i % D], factor, total);
    }
    a.out[at + i] = total / sum;
  }
}
