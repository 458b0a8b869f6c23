// Linear layers of 16-bit weights on tensor cores: weights are the rows of the product (its M),
// activations its columns. Weights lie as [tile][chunk][16][32], the parts of 16 bytes of a row
// exchanged (`swizzled`); within a chunk both operands take the inputs in the same other order
// (lane t of a quad has 8t..8t+7), so that every lane loads 16 bytes at once.
#pragma once
#include "linear.cuh"
#include "ptx.cuh"

DEVICE const uint4* dense_chunk(const LinearGroup& group, int tile, int chunk) {
  return reinterpret_cast<const uint4*>(group.weight) +
         (size_t(tile) * group.n_chunks + chunk) * 64;
}

// The 16 bytes that lane (g, t) has of row g of a tile; those of row g + 8 are 32 further on.
DEVICE int dense_part(int lane) { return lane / 4 * 4 + swizzled(lane / 4, lane % 4); }

// acc += w[16][32] x[32][8].
template <class T>
DEVICE void mma_chunk(float (&acc)[4], uint4 upper, uint4 lower, uint4 x) {
  const uint32_t first[4] = {upper.x, lower.x, upper.y, lower.y};
  const uint32_t second[4] = {upper.z, lower.z, upper.w, lower.w};
  mma(acc, first, x.x, x.y, T());
  mma(acc, second, x.z, x.w, T());
}

// Up to 32 rows: a block computes 16 columns, each of its warps one slice of the sum.
template <class T>
DEVICE void dense_small(const LinearArgs& a) {
  constexpr int ROWS = SMALL_ROWS, TILES = ROWS / 8;
  __shared__ SmallSums sums;
  LinearTask task;
  if (!take_task<ROWS, 16>(a, task)) return;
  const int lane = lane_id(), warp = warp_id(), g = lane / 4, t = lane % 4;
  const uint4* x[TILES];
#pragma unroll
  for (int i = 0; i < TILES; i++) {
    const int row = 8 * i + g;
    x[i] = row < task.n_rows ? static_cast<const uint4*>(a.x) +
                                   row_in(a, task.first + row) * a.x_chunks * 4 + t
                             : nullptr;
  }
  float acc[TILES][4] = {};
  // A tile past the last one only writes zeros.
  const int tile = min(int(blockIdx.x), ceil_div(task.group.n_out, 16) - 1);
  const int end = slice_begin(warp + 1, task.group.n_chunks), part = dense_part(lane);
#pragma unroll 4
  for (int chunk = slice_begin(warp, task.group.n_chunks); chunk < end; chunk++) {
    const uint4* w = dense_chunk(task.group, tile, chunk) + part;
    const uint4 upper = __ldg(w), lower = __ldg(w + 32);
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      if (8 * i >= task.n_rows) break;
      const uint4 b = x[i] ? __ldg(x[i] + chunk * 4) : make_uint4(0, 0, 0, 0);
      mma_chunk<T>(acc[i], upper, lower, b);
    }
  }
  finish_small(a, task, acc, sums);
}

// Many rows: a block computes 128 columns of 64 rows, each of its warps 32 columns; activations
// come through shared memory in three stages, weights straight to registers.
template <class T>
DEVICE void dense_large(const LinearArgs& a) {
  constexpr int ROWS = LARGE_ROWS, STAGES = 3;
  __shared__ uint4 stages[STAGES][ROWS][4];
  __shared__ LargeTotals totals;
  LinearTask task;
  if (!take_task<ROWS, 128>(a, task)) return;
  const int lane = lane_id(), g = lane / 4, t = lane % 4, n_chunks = task.group.n_chunks;
  const int part = dense_part(lane);
  const int n_tiles = ceil_div(task.group.n_out, 16), tile = int(blockIdx.x) * 8 + warp_id() * 2;

  // Each thread brings 16 bytes of two rows of a stage, side by side with its neighbours.
  const int load_row = threadIdx.x / 4, load_part = threadIdx.x % 4;
  const uint4* from[2];
  bool valid[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int row = load_row + 32 * i;
    valid[i] = row < task.n_rows;
    from[i] = static_cast<const uint4*>(a.x) + load_part +
              (valid[i] ? row_in(a, task.first + row) * a.x_chunks * 4 : 0);
  }
  auto load = [&](int chunk) {
    if (chunk < n_chunks) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        cp_async_16(&stages[chunk % STAGES][load_row + 32 * i][load_part], from[i] + chunk * 4, valid[i]);
      }
    }
    cp_async_commit();
  };
  auto weights = [&](uint4(&w)[4], int chunk) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      // Tiles past the last one compute the last one again and throw it away.
      const uint4* from = dense_chunk(task.group, min(tile + i, n_tiles - 1), chunk) + part;
      w[2 * i] = __ldg(from);
      w[2 * i + 1] = __ldg(from + 32);
    }
  };

  float acc[2][8][4] = {};
  int slice = 0;
  load(0);
  load(1);
  uint4 w[4] = {}, next[4] = {};
  if (n_chunks > 0) weights(w, 0);
  for (int chunk = 0;; chunk++) {
    end_slices(slice, chunk, n_chunks, acc, totals);
    if (chunk == n_chunks) break;
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    load(chunk + 2);
    if (chunk + 1 < n_chunks) weights(next, chunk + 1);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const uint4 b = stages[chunk % STAGES][8 * i + g][t];
      mma_chunk<T>(acc[0][i], w[0], w[1], b);
      mma_chunk<T>(acc[1][i], w[2], w[3], b);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = next[i];
  }
  cp_async_wait<0>();
  finish_large(a, task, tile, totals);
}
