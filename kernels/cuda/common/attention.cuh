// Attention over the paged cache with tensor cores.
//
// The query rows of one sequence and all query heads that share a kv head are one packed list:
// row i of the list is query row i / group, head i % group. A block takes 64 packed rows (each
// of its warps 16) and walks positions in tiles; decoding rows and long prompts are the same
// work. Positions are cut into splits of SPLIT at fixed places, each reduced from nothing, and
// splits are merged in order, by the block itself or, to spread one long row over many blocks,
// by `attention_combine`: the arithmetic of a row is the same either way, and tiles that it does
// not see leave it as it is, bit for bit.
//
// Queries and weights are rounded to bf16 for the products; sums are f32.
#pragma once
#include "kv.cuh"
#include "math.cuh"
#include "ptx.cuh"

constexpr int SPLIT = 512;

// 64 packed rows of a sequence over a run of splits.
struct AttentionItem {
  uint32_t sequence, first_packed, first_split, end_split;
  // Where its splits go, as rows of the parts; -1: the whole result goes to `out`.
  int first_part;
};

struct CombineItem {
  uint32_t sequence, first_packed, n_packed, first_part, n_parts;
};

struct AttentionArgs {
  const float* q;
  const bf16* keys;
  const bf16* values;
  const SequenceRows* sequences;
  const uint32_t* tables;
  const AttentionItem* items;
  float* out;
  // [part][n_kv_heads], and [part][n_kv_heads][head_dim].
  float* part_max;
  float* part_sum;
  float* part_out;
  int n_heads, n_kv_heads, head_dim, block_size;
  Scoring scoring;
};

// Adds one split to what there is; maxima are in units of log2.
struct Merge {
  float old_factor, new_factor;

  DEVICE void begin(float& max, float& sum, float part_max, float part_sum) {
    const float both = fmaxf(max, part_max), base = both == -INFINITY ? 0.f : both;
    old_factor = exp2_fast(max - base);
    new_factor = exp2_fast(part_max - base);
    sum = __fmaf_rn(sum, old_factor, __fmul_rn(part_sum, new_factor));
    max = both;
  }

  DEVICE float value(float old_value, float part) const {
    return __fmaf_rn(old_value, old_factor, __fmul_rn(part, new_factor));
  }
};

// What sums are multiplied with at the end: one over all weights, the sink's among them.
DEVICE float last_factor(const AttentionArgs& a, int head, float max, float sum) {
  if (!a.scoring.sinks) return 1.f / sum;
  const float sink = a.scoring.sinks[head] * LOG2_E, both = fmaxf(max, sink);
  const float factor = exp2_fast(max - both);
  return factor / (__fmaf_rn(sum, factor, exp2_fast(sink - both)));
}

// As `softcap`, to an error of about 1e-7 caps, which is all that a score needs.
DEVICE float softcap_score(float x, float cap) {
  const float e = exp2_fast(x * (2.f * LOG2_E) / cap);
  return cap - __fdividef(2.f * cap, 1.f + e);
}

DEVICE uint32_t pack_bf16(float low, float high) {
  const bf162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// What a thread knows of the two packed rows that its fragments hold (g and g + 8 of its warp).
struct PackedRow {
  int position, head;
  float slope;
  size_t at;
  bool valid;
};

template <int D, int BN>
struct AttentionShared {
  // Rows are padded so that eight of them lie in different banks.
  static constexpr int STRIDE = D + 8;
  bf16 keys[BN][STRIDE];
  bf16 values[BN][STRIDE];
  bf16 queries[D > 128 ? 64 : 1][STRIDE];
  size_t offsets[2][BN];
};

template <int D, int BN>
DEVICE void attention(const AttentionArgs& a) {
  using Shared = AttentionShared<D, BN>;
  extern __shared__ __align__(16) uint8_t dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  constexpr bool KEEP_Q = D <= 128;
  constexpr int KD = D / 16, NT = BN / 8, DT = D / 8;

  const AttentionItem item = a.items[blockIdx.x];
  const SequenceRows rows = a.sequences[item.sequence];
  const int kv_head = blockIdx.y, group = a.n_heads / a.n_kv_heads;
  const int n_packed = int(rows.n_rows) * group, last = min(int(item.first_packed) + 64, n_packed) - 1;
  const int lane = lane_id(), warp = warp_id(), g = lane / 4, t = lane % 4;
  const int context = int(rows.start + rows.n_rows);

  PackedRow mine[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int packed = int(item.first_packed) + warp * 16 + g + 8 * i;
    const int row = min(packed, last) / group;
    mine[i].valid = packed <= last;
    mine[i].head = kv_head * group + min(packed, last) % group;
    mine[i].slope = a.scoring.slopes ? a.scoring.slopes[mine[i].head] : 0.f;
    mine[i].position = int(rows.start) + row;
    mine[i].at = (size_t(rows.first_row + row) * a.n_heads + mine[i].head) * D;
  }

  // Positions that some row of the block sees, within its splits.
  const int first_row = int(item.first_packed) / group, last_row = last / group;
  const int window = a.scoring.window;
  const float scale = a.scoring.scale;
  const int lowest = window ? max(0, int(rows.start) + first_row - window + 1) : 0;
  const int begin = max(int(item.first_split) * SPLIT, lowest / BN * BN);
  const int end = min(int(item.end_split) * SPLIT, int(rows.start) + last_row + 1);

  uint32_t q[KEEP_Q ? KD : 1][4];
  auto query = [&](int i, int d) {
    const float2 x = *reinterpret_cast<const float2*>(a.q + mine[i].at + d);
    return pack_bf16(x.x, x.y);
  };
  if constexpr (KEEP_Q) {
#pragma unroll
    for (int k = 0; k < KD; k++) {
#pragma unroll
      for (int i = 0; i < 4; i++) q[k][i] = query(i % 2, k * 16 + i / 2 * 8 + 2 * t);
    }
  } else {
    // Each warp writes and reads its own rows.
    for (int d = 2 * t; d < D; d += 8) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        *reinterpret_cast<uint32_t*>(&shared.queries[warp * 16 + g + 8 * i][d]) = query(i, d);
      }
    }
    __syncwarp();
  }

  // Where the positions of a tile lie, for the next loads.
  auto find = [&](int first, int slot) {
    if (threadIdx.x < BN) {
      const int position = first + int(threadIdx.x);
      size_t offset = ~size_t(0);
      // Blocks that no row sees any more may be gone.
      if (position >= lowest && position < context) {
        const uint32_t block = a.tables[rows.table + position / a.block_size];
        offset = kv_offset(block * a.block_size + position % a.block_size, kv_head, a.n_kv_heads,
                           a.block_size, D);
      }
      shared.offsets[slot][threadIdx.x] = offset;
    }
  };
  auto load = [&](const bf16* from, bf16(*to)[Shared::STRIDE], int slot) {
    for (int i = threadIdx.x; i < BN * (D / 8); i += 128) {
      const int row = i / (D / 8), part = i % (D / 8) * 8;
      const size_t offset = shared.offsets[slot][row];
      const bool valid = offset != ~size_t(0);
      cp_async_16(&to[row][part], valid ? from + offset + part : from, valid);
    }
    cp_async_commit();
  };

  float out[DT][4], max_of[2] = {-INFINITY, -INFINITY}, sum_of[2] = {0.f, 0.f};
  float total_max[2] = {-INFINITY, -INFINITY}, total_sum[2] = {0.f, 0.f};
#pragma unroll
  for (int i = 0; i < DT; i++) out[i][0] = out[i][1] = out[i][2] = out[i][3] = 0.f;

  // A split is done: its sums go to the parts, or are merged into `out`.
  auto end_split = [&](int split, bool is_last) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      sum_of[i] += __shfl_xor_sync(ALL_LANES, sum_of[i], 1);
      sum_of[i] += __shfl_xor_sync(ALL_LANES, sum_of[i], 2);
      const bool in_parts = item.first_part >= 0;
      // A part is its split merged with nothing, and so is the first split.
      const bool add = !in_parts && begin / SPLIT != split && mine[i].valid;
      float* to = a.out + mine[i].at;
      Merge merge{0.f, 1.f};
      float factor = 1.f;
      if (in_parts) {
        const int packed = warp * 16 + g + 8 * i, n = last - int(item.first_packed) + 1;
        const size_t part = size_t(item.first_part + (split - int(item.first_split)) * n + packed) *
                                a.n_kv_heads + kv_head;
        if (mine[i].valid && t == 0) {
          a.part_max[part] = max_of[i];
          a.part_sum[part] = sum_of[i];
        }
        to = a.part_out + part * D;
      } else {
        merge.begin(total_max[i], total_sum[i], max_of[i], sum_of[i]);
        if (is_last) factor = last_factor(a, mine[i].head, total_max[i], total_sum[i]);
      }
#pragma unroll
      for (int d = 0; d < DT; d++) {
        float2* at = reinterpret_cast<float2*>(to + d * 8 + 2 * t);
        float2 old = make_float2(0.f, 0.f);
        if (add) old = *at;
        old.x = __fmul_rn(merge.value(old.x, out[d][2 * i]), factor);
        old.y = __fmul_rn(merge.value(old.y, out[d][2 * i + 1]), factor);
        if (mine[i].valid) *at = old;
        out[d][2 * i] = out[d][2 * i + 1] = 0.f;
      }
      max_of[i] = -INFINITY;
      sum_of[i] = 0.f;
    }
  };

  find(begin, 0);
  __syncthreads();
  load(a.keys, shared.keys, 0);
  for (int first = begin, slot = 0; first < end; first += BN, slot ^= 1) {
    load(a.values, shared.values, slot);
    find(first + BN, slot ^ 1);
    cp_async_wait<1>();
    __syncthreads();

    float scores[NT][4];
#pragma unroll
    for (int n = 0; n < NT; n++) scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.f;
#pragma unroll
    for (int k = 0; k < KD; k++) {
      uint32_t from_shared[4];
      if constexpr (!KEEP_Q) {
        ldmatrix_x4(from_shared, &shared.queries[warp * 16 + lane % 16][k * 16 + lane / 16 * 8]);
      }
      const uint32_t(&qk)[4] = KEEP_Q ? q[KEEP_Q ? k : 0] : from_shared;
#pragma unroll
      for (int n = 0; n < NT; n += 2) {
        uint32_t b[4];
        ldmatrix_x4(b, &shared.keys[n * 8 + lane / 16 * 8 + lane % 8][k * 16 + lane / 8 % 2 * 8]);
        mma(scores[n], qk, b[0], b[1], bf16());
        mma(scores[n + 1], qk, b[2], b[3], bf16());
      }
    }
    // Everybody is through with the keys, and the next tile's places are known.
    __syncthreads();
    if (first + BN < end) {
      load(a.keys, shared.keys, slot ^ 1);
    } else {
      cp_async_commit();
    }

    if (a.scoring.cap != 0.f) {
#pragma unroll
      for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int c = 0; c < 4; c++) scores[n][c] = softcap_score(scores[n][c] * scale, a.scoring.cap);
      }
    }
    // Scores in units of log2, and the new maxima.
    float tile_max[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
      for (int c = 0; c < 4; c++) {
        const int i = c / 2, position = first + n * 8 + 2 * t + c % 2;
        const int behind = mine[i].position - position;
        float s = scores[n][c] * (a.scoring.cap != 0.f ? 1.f : scale);
        s -= mine[i].slope * float(behind);
        const bool visible = behind >= 0 && (window == 0 || behind < window);
        s = visible ? s * LOG2_E : -INFINITY;
        scores[n][c] = s;
        tile_max[i] = fmaxf(tile_max[i], s);
      }
    }
    float factor[2], base[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      tile_max[i] = fmaxf(tile_max[i], __shfl_xor_sync(ALL_LANES, tile_max[i], 1));
      tile_max[i] = fmaxf(tile_max[i], __shfl_xor_sync(ALL_LANES, tile_max[i], 2));
      const float both = fmaxf(max_of[i], tile_max[i]);
      base[i] = both == -INFINITY ? 0.f : both;
      factor[i] = exp2_fast(max_of[i] - base[i]);
      max_of[i] = both;
      sum_of[i] *= factor[i];
    }
#pragma unroll
    for (int d = 0; d < DT; d++) {
#pragma unroll
      for (int c = 0; c < 4; c++) out[d][c] *= factor[c / 2];
    }
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
      for (int c = 0; c < 4; c++) {
        scores[n][c] = exp2_fast(scores[n][c] - base[c / 2]);
        sum_of[c / 2] += scores[n][c];
      }
    }

    cp_async_wait<1>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < BN / 16; k++) {
      const uint32_t p[4] = {pack_bf16(scores[2 * k][0], scores[2 * k][1]),
                             pack_bf16(scores[2 * k][2], scores[2 * k][3]),
                             pack_bf16(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                             pack_bf16(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
      for (int d = 0; d < DT; d += 2) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, &shared.values[k * 16 + lane % 16][d * 8 + lane / 16 * 8]);
        mma(out[d], p, b[0], b[1], bf16());
        mma(out[d + 1], p, b[2], b[3], bf16());
      }
    }
    // Everybody is through with the values.
    __syncthreads();
    const int next = first + BN;
    if (next % SPLIT == 0 || next >= end) end_split(first / SPLIT, next >= end);
  }
  cp_async_wait<0>();
}
