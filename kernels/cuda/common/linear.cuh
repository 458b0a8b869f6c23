// What linear layers share: groups of rows with a weight each, slices of the sum, the ending.
//
// A launch covers one weight or many: experts with the rows routed to them, adapters with the
// rows that use them. Every output is summed in the same order whatever the launch and the
// number of rows: its inputs are cut into SLICES runs, each summed in order from zero, and the
// runs are added in order. Few rows give each run a warp of its own; many rows walk them.
#pragma once
#include "types.cuh"

constexpr int SLICES = 4;

// First chunk (32 inputs) of a slice.
DEVICE int slice_begin(int slice, int n_chunks) { return slice * n_chunks / SLICES; }

struct LinearGroup {
  const uint8_t* weight;
  const uint8_t* scales;
  const float* bias;
  int n_out, n_chunks;
  float scale;
};

enum Ending : int {
  // out = sum + bias.
  STORE,
  // out += scale * sum.
  ADD_SCALED,
  // out = bf16(sum), filled up with zeros to whole chunks: the input of another layer.
  STORE_BF16
};

struct LinearArgs {
  // Rows of chunks, and their scales if they are int8.
  const void* x;
  const void* meta;
  // Chunks of a row of x.
  int x_chunks;
  int ending;
  // Which row of x (of out) row i of all groups is; null: i itself.
  const uint32_t* rows_in;
  const uint32_t* rows_out;
  void* out;
  int out_stride;
  // Without groups: rows of `one`.
  int n_rows;
  LinearGroup one;
  // Group z has rows offsets[z]..offsets[z + 1].
  const LinearGroup* groups;
  const uint32_t* offsets;
};

// The rows and the weight of this block.
struct LinearTask {
  LinearGroup group;
  int first, n_rows;
};

// Tiles of 16 columns that a group writes.
DEVICE int tiles_of(const LinearArgs& a, const LinearGroup& group) {
  return a.ending == STORE_BF16 ? 2 * ceil_div(group.n_out, 32) : ceil_div(group.n_out, 16);
}

// False: nothing to do.
template <int ROWS, int COLUMNS>
DEVICE bool take_task(const LinearArgs& a, LinearTask& task) {
  int begin = 0, end = a.n_rows;
  task.group = a.one;
  if (a.groups) {
    task.group = a.groups[blockIdx.z];
    begin = int(a.offsets[blockIdx.z]);
    end = int(a.offsets[blockIdx.z + 1]);
  }
  task.first = begin + int(blockIdx.y) * ROWS;
  task.n_rows = end - task.first;
  return task.n_rows > 0 && int(blockIdx.x) * COLUMNS < 16 * tiles_of(a, task.group);
}

DEVICE size_t row_in(const LinearArgs& a, int row) { return a.rows_in ? a.rows_in[row] : row; }

DEVICE void finish(const LinearArgs& a, const LinearGroup& group, int row, int column, float sum) {
  const size_t at = size_t(a.rows_out ? a.rows_out[row] : row) * a.out_stride + column;
  if (a.ending == STORE_BF16) {
    static_cast<bf16*>(a.out)[at] = __float2bfloat16_rn(column < group.n_out ? sum : 0.f);
    return;
  }
  if (column >= group.n_out) return;
  float* out = static_cast<float*>(a.out) + at;
  if (a.ending == ADD_SCALED) {
    *out = fmaf(group.scale, sum, *out);
  } else {
    *out = group.bias ? sum + group.bias[column] : sum;
  }
}

// Few rows: each warp of a block has summed its slice of 16 columns, in tiles of 8 rows.
constexpr int SMALL_ROWS = 32;
// [slice][row][column], padded against bank conflicts.
using SmallSums = float[SLICES][SMALL_ROWS][20];

// Adds the slices of all warps in order and ends.
DEVICE void finish_small(const LinearArgs& a, const LinearTask& task,
                         const float (&acc)[SMALL_ROWS / 8][4], SmallSums& sums) {
  const int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
  for (int i = 0; i < SMALL_ROWS / 8; i++) {
#pragma unroll
    for (int c = 0; c < 4; c++) sums[warp_id()][8 * i + 2 * t + c % 2][g + c / 2 * 8] = acc[i][c];
  }
  __syncthreads();
  const int column = threadIdx.x % 16;
  // The two rows of a warp are those whose padding puts them into different banks.
  const int first = warp_id() + lane_id() / 16 * 4;
  for (int row = first; row < min(SMALL_ROWS, task.n_rows); row += 8) {
    float sum = 0.f;
#pragma unroll
    for (int s = 0; s < SLICES; s++) sum += sums[s][row][column];
    finish(a, task.group, task.first + row, blockIdx.x * 16 + column, sum);
  }
}

// Many rows: each thread of a block of 128 sums 2 tiles of 16 columns for 8 tiles of 8 rows.
constexpr int LARGE_ROWS = 64;
// Sums of the slices so far, each thread its own.
using LargeTotals = float[LARGE_ROWS][128];

// Adds sums to the totals where slices end before `chunk`.
DEVICE void end_slices(int& slice, int chunk, int n_chunks, float (&acc)[2][8][4],
                       LargeTotals& totals) {
  while (slice < SLICES && slice_begin(slice + 1, n_chunks) == chunk) {
#pragma unroll
    for (int e = 0; e < 64; e++) {
      float& total = totals[e][threadIdx.x];
      float& sum = acc[e / 32][e / 4 % 8][e % 4];
      total = (slice == 0 ? 0.f : total) + sum;
      sum = 0.f;
    }
    slice++;
  }
}

DEVICE void finish_large(const LinearArgs& a, const LinearTask& task, int tile,
                         const LargeTotals& totals) {
  const int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll 1
  for (int e = 0; e < 64; e++) {
    const int row = e / 4 % 8 * 8 + 2 * t + e % 2;
    const int column = (tile + e / 32) * 16 + g + e % 4 / 2 * 8;
    if (row < task.n_rows && tile + e / 32 < tiles_of(a, task.group)) {
      finish(a, task.group, task.first + row, column, totals[e][threadIdx.x]);
    }
  }
}
