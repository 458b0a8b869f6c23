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
