// Linear layers of 16-bit weights on compute capability 9.0: activations are the rows of the
// product, weights its columns. Four producer warps fill a ring of stages, one chunk of 32
// inputs each: weights as they lie, by bulk copies, activations by copies of 16 bytes; warp
// groups of four consumers multiply what has come, 64 rows each.
//
// Sums are cut into the same slices as everywhere. Both shapes do this with the same
// instructions but for their width, which is taken not to change a sum: a row has the same bits.
#pragma once
#include "linear_dense.cuh"
#include "ptx_sm90.cuh"

template <int ROWS, int COLUMNS, int STAGES>
struct WgmmaShared {
  uint4 x[STAGES][ROWS][4];
  uint4 weight[STAGES][COLUMNS][4];
  Mbarrier full[STAGES], empty[STAGES];
};

// Chunks whose activations are on their way while the next are asked for.
constexpr int WGMMA_LAG = 4;

template <int ROWS, int COLUMNS, int STAGES>
DEVICE void wgmma_produce(const LinearArgs& a, const LinearTask& task,
                          WgmmaShared<ROWS, COLUMNS, STAGES>& shared) {
  static_assert(WGMMA_LAG < STAGES, "a stage is announced before it is needed again");
  constexpr int TILES = COLUMNS / 16, TILE_BYTES = 16 * 64;
  const int thread = threadIdx.x % 128, first_row = thread / 4, part = thread % 4;
  const int n_chunks = task.group.n_chunks, n_tiles = ceil_div(task.group.n_out, 16);
  // Null: there is no such row. It is zero in all stages, once and for all.
  const uint4* from[ROWS / 32];
#pragma unroll
  for (int i = 0; i < ROWS / 32; i++) {
    const int row = first_row + 32 * i;
    from[i] = nullptr;
    if (row < task.n_rows) {
      from[i] = static_cast<const uint4*>(a.x) + part +
                row_in(a, task.first + row) * a.x_chunks * 4;
    } else {
      for (int s = 0; s < STAGES; s++) shared.x[s][row][part] = make_uint4(0, 0, 0, 0);
    }
  }
  // Tiles past the last one compute the last one again and throw it away.
  const int tile = min(int(blockIdx.x) * TILES + thread, n_tiles - 1);

  for (int chunk = 0; chunk < n_chunks + WGMMA_LAG; chunk++) {
    const int slot = chunk % STAGES;
    if (chunk < n_chunks) {
      mbarrier_wait(shared.empty[slot], chunk / STAGES % 2 ^ 1);
      if (thread == 0) mbarrier_arrive_expect(shared.full[slot], TILES * TILE_BYTES);
      if (thread < TILES) {
        bulk_copy(shared.weight[slot][16 * thread], dense_chunk(task.group, tile, chunk),
                  TILE_BYTES, shared.full[slot]);
      }
#pragma unroll
      for (int i = 0; i < ROWS / 32; i++) {
        const int row = first_row + 32 * i;
        if (from[i]) cp_async_16(&shared.x[slot][row][swizzled(row, part)], from[i] + chunk * 4);
      }
    }
    cp_async_commit();
    if (chunk < WGMMA_LAG) continue;
    cp_async_wait<WGMMA_LAG>();
    fence_proxy_async();
    __syncwarp();
    if (lane_id() == 0) mbarrier_arrive(shared.full[(chunk - WGMMA_LAG) % STAGES]);
  }
}

template <class T, int ROWS, int COLUMNS, int STAGES>
DEVICE void wgmma_consume(const LinearArgs& a, const LinearTask& task,
                          WgmmaShared<ROWS, COLUMNS, STAGES>& shared) {
  constexpr int N = COLUMNS / 2;
  const int group = threadIdx.x / 128, n_chunks = task.group.n_chunks;
  auto release = [&](int chunk) {
    if (lane_id() == 0) mbarrier_arrive(shared.empty[chunk % STAGES]);
  };
  float acc[N], totals[N];
#pragma unroll
  for (int i = 0; i < N; i++) totals[i] = 0.f;
#pragma unroll 1
  for (int slice = 0; slice < SLICES; slice++) {
    const int begin = slice_begin(slice, n_chunks), end = slice_begin(slice + 1, n_chunks);
    if (begin == end) continue;
#pragma unroll 1
    for (int chunk = begin; chunk < end; chunk++) {
      const int slot = chunk % STAGES;
      mbarrier_wait(shared.full[slot], chunk / STAGES % 2);
      const uint64_t x = wgmma_rows(shared.x[slot][64 * group]);
      const uint64_t weight = wgmma_rows(shared.weight[slot]);
      wgmma_fence();
      wgmma(acc, x, weight, chunk > begin, T());
      // The next 16 inputs: 32 bytes further on.
      wgmma(acc, x + 2, weight + 2, true, T());
      wgmma_commit();
      wgmma_wait<1>();
      if (chunk > begin) release(chunk - 1);
    }
    wgmma_wait<0>();
    wgmma_done(acc);
    release(end - 1);
#pragma unroll
    for (int i = 0; i < N; i++) totals[i] += acc[i];
  }

  const int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
  for (int i = 0; i < N; i++) {
    const int row = 64 * group + warp_id() % 4 * 16 + g + i % 4 / 2 * 8;
    const int column = int(blockIdx.x) * COLUMNS + i / 4 * 8 + 2 * t + i % 2;
    if (row < task.n_rows && column < 16 * tiles_of(a, task.group)) {
      finish(a, task.group, task.first + row, column, totals[i]);
    }
  }
}

// A block computes COLUMNS columns of ROWS rows, with ROWS / 64 groups of consumers.
template <class T, int ROWS, int COLUMNS, int STAGES>
DEVICE void wgmma_linear(const LinearArgs& a) {
  using Shared = WgmmaShared<ROWS, COLUMNS, STAGES>;
  extern __shared__ __align__(1024) uint8_t dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  LinearTask task;
  if (!take_task<ROWS, COLUMNS>(a, task)) return;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      // The producers' warps and the announcement; the consumers' warps.
      mbarrier_init(shared.full[i], 4 + 1);
      mbarrier_init(shared.empty[i], ROWS / 16);
    }
    fence_proxy_async();
  }
  __syncthreads();
  if (threadIdx.x < 2 * ROWS) {
    wgmma_consume<T>(a, task, shared);
  } else {
    wgmma_produce(a, task, shared);
  }
}
