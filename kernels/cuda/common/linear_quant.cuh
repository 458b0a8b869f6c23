// Linear layers of quantized weights on tensor cores: unsigned codes times int8 activations with
// exact int32 sums for each group of 32 inputs, then one f32 multiply-add for each scale and
// minimum: `Numerics::Native`.
#pragma once
#include "group.cuh"
#include "linear.cuh"
#include "ptx.cuh"
#include "quant.cuh"

// Weights of a group of one tile, as a lane (g, t) holds them: columns g and g + 8.
template <class F>
struct Fragment {
  Words<F> words[2];
  Scales scales[2];
};

template <class F>
DEVICE Fragment<F> load_fragment(const LinearGroup& group, int tile, int chunk, int g, int t) {
  const uint32_t* lines =
      reinterpret_cast<const uint32_t*>(group.weight + tile * F::tile_lines(group.n_chunks)) +
      size_t(chunk) * F::LINES * 16;
  const uint8_t* scales = group.scales + tile * F::tile_scales(group.n_chunks);
  Fragment<F> f;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    f.words[i] = load_words<F>(lines, g + 8 * i, t);
    f.scales[i] = load_scales<F>(scales, chunk, g + 8 * i);
  }
  return f;
}

// Codes of a fragment, as the first operand of a product.
template <class F>
DEVICE void codes_of(uint32_t (&codes)[4], const Fragment<F>& f, int t) {
#pragma unroll
  for (int i = 0; i < 4; i++) codes[i] = quad_of<F>(f.words[i % 2], t, i / 2);
}

// One part of a group with a scale of its own: acc += scale * act_scale * sum + min * act_sum.
template <class F>
DEVICE void add_part(float (&acc)[4], const int (&sum)[4], const Fragment<F>& f, int half,
                     const float (&act_scale)[2], const int (&act_sum)[2]) {
#pragma unroll
  for (int c = 0; c < 4; c++) {
    const Scales& s = f.scales[c / 2];
    acc[c] = __fmaf_rn(float(sum[c]), __fmul_rn(s.scale[half], act_scale[c % 2]), acc[c]);
    if constexpr (F::HAS_MIN) {
      const float scaled = __fmul_rn(float(act_sum[c % 2]), act_scale[c % 2]);
      acc[c] = __fmaf_rn(s.min[half], scaled, acc[c]);
    }
  }
}

// acc += w[16][32] x[32][8]; `b`: quads t and t + 4 of row g; `meta`: of rows 2t and 2t + 1.
template <class F>
DEVICE void mma_group(float (&acc)[4], const uint32_t (&codes)[4], const Fragment<F>& f, uint2 b,
                      const GroupMeta& m0, const GroupMeta& m1) {
  const float act_scale[2] = {m0.scale, m1.scale};
  if constexpr (F::HALVES) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int act_sum[2] = {half ? m0.high : m0.low, half ? m1.high : m1.low};
      int sum[4];
#pragma unroll
      for (int c = 0; c < 4; c++) sum[c] = -F::ZERO * act_sum[c % 2];
      mma_u8s8_half(sum, codes[2 * half], codes[2 * half + 1], half ? b.y : b.x);
      add_part<F>(acc, sum, f, half, act_scale, act_sum);
    }
  } else {
    const int act_sum[2] = {m0.low + m0.high, m1.low + m1.high};
    int sum[4];
#pragma unroll
    for (int c = 0; c < 4; c++) sum[c] = -F::ZERO * act_sum[c % 2];
    mma_u8s8(sum, codes, b.x, b.y);
    add_part<F>(acc, sum, f, 0, act_scale, act_sum);
  }
}

// Up to 32 rows: a block computes 16 columns, each of its warps one slice of the sum.
template <class F>
DEVICE void quant_small(const LinearArgs& a) {
  constexpr int ROWS = SMALL_ROWS, TILES = ROWS / 8;
  __shared__ SmallSums sums;
  LinearTask task;
  if (!take_task<ROWS, 16>(a, task)) return;
  const int lane = lane_id(), warp = warp_id(), g = lane / 4, t = lane % 4;
  const uint2* x = static_cast<const uint2*>(a.x);
  const GroupMeta* meta = static_cast<const GroupMeta*>(a.meta);
  // Where rows begin, in chunks; rows past the last repeat it and are thrown away.
  int of_codes[TILES], of_meta[TILES][2];
#pragma unroll
  for (int i = 0; i < TILES; i++) {
    auto begin = [&](int row) {
      return int(row_in(a, task.first + min(row, task.n_rows - 1))) * a.x_chunks;
    };
    of_codes[i] = begin(8 * i + g);
    of_meta[i][0] = begin(8 * i + 2 * t);
    of_meta[i][1] = begin(8 * i + 2 * t + 1);
  }
  float acc[TILES][4] = {};
  // A tile past the last one only writes zeros.
  const int tile = min(int(blockIdx.x), ceil_div(task.group.n_out, 16) - 1);
  const int end = slice_begin(warp + 1, task.group.n_chunks);
#pragma unroll 2
  for (int chunk = slice_begin(warp, task.group.n_chunks); chunk < end; chunk++) {
    const Fragment<F> f = load_fragment<F>(task.group, tile, chunk, g, t);
    uint32_t codes[4];
    codes_of<F>(codes, f, t);
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      if (8 * i >= task.n_rows) break;
      const uint2 b = __ldg(x + size_t(of_codes[i] + chunk) * 4 + t);
      const GroupMeta m0 = meta[of_meta[i][0] + chunk], m1 = meta[of_meta[i][1] + chunk];
      mma_group<F>(acc[i], codes, f, b, m0, m1);
    }
  }
  finish_small(a, task, acc, sums);
}

// Many rows: a block computes 128 columns of 64 rows, each of its warps 32 columns; activations
// come through shared memory in three stages of two groups, weights straight to registers.
template <class F>
DEVICE void quant_large(const LinearArgs& a) {
  constexpr int ROWS = LARGE_ROWS, STAGES = 3, GROUPS = 2;
  __shared__ uint4 codes_of_stage[STAGES][GROUPS][ROWS][2];
  __shared__ GroupMeta meta_of_stage[STAGES][GROUPS][ROWS];
  __shared__ LargeTotals totals;
  LinearTask task;
  if (!take_task<ROWS, 128>(a, task)) return;
  const int lane = lane_id(), g = lane / 4, t = lane % 4, n_chunks = task.group.n_chunks;
  const int n_tiles = ceil_div(task.group.n_out, 16), tile = int(blockIdx.x) * 8 + warp_id() * 2;

  // Each thread brings 16 bytes of codes of both groups, and the meta of one row of one group;
  // neighbours bring what lies side by side.
  const int codes_row = threadIdx.x / 2, codes_part = threadIdx.x % 2;
  const int meta_row = threadIdx.x % ROWS, meta_group = threadIdx.x / ROWS;
  auto begin_of = [&](int row) {
    return row < task.n_rows ? row_in(a, task.first + row) * a.x_chunks : 0;
  };
  const size_t codes_begin = begin_of(codes_row), meta_begin = begin_of(meta_row);
  auto load = [&](int stage) {
    const int first = stage * GROUPS, slot = stage % STAGES;
    if (first < n_chunks) {
#pragma unroll
      for (int i = 0; i < GROUPS; i++) {
        const bool valid = codes_row < task.n_rows && first + i < n_chunks;
        const size_t at = valid ? (codes_begin + first + i) * 2 + codes_part : 0;
        cp_async_16(&codes_of_stage[slot][i][codes_row][codes_part], static_cast<const uint4*>(a.x) + at, valid);
      }
      const bool valid = meta_row < task.n_rows && first + meta_group < n_chunks;
      const size_t at = valid ? meta_begin + first + meta_group : 0;
      cp_async_8(&meta_of_stage[slot][meta_group][meta_row], static_cast<const GroupMeta*>(a.meta) + at, valid);
    }
    cp_async_commit();
  };

  float acc[2][8][4] = {};
  int slice = 0;
  load(0);
  load(1);
  for (int chunk = 0;; chunk++) {
    end_slices(slice, chunk, n_chunks, acc, totals);
    if (chunk == n_chunks) break;
    const int stage = chunk / GROUPS, slot = stage % STAGES, part = chunk % GROUPS;
    if (part == 0) {
      cp_async_wait<STAGES - 2>();
      __syncthreads();
      load(stage + 2);
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
      // Tiles past the last one compute the last one again and throw it away.
      const Fragment<F> f = load_fragment<F>(task.group, min(tile + j, n_tiles - 1), chunk, g, t);
      uint32_t codes[4];
      codes_of<F>(codes, f, t);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const uint2 b = reinterpret_cast<const uint2*>(codes_of_stage[slot][part][8 * i + g])[t];
        const GroupMeta* m = &meta_of_stage[slot][part][8 * i + 2 * t];
        mma_group<F>(acc[j][i], codes, f, b, m[0], m[1]);
      }
    }
  }
  cp_async_wait<0>();
  finish_large(a, task, tile, totals);
}
