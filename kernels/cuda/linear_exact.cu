// out = x W^T with f32 activations and weights widened exactly, of any format: dense f32 weights
// and `Numerics::F32`.
#include "common/linear.cuh"
#include "common/unpack.cuh"

// A block computes 16 columns of 8 rows, a thread one value, in the order of the inputs.
KERNEL __launch_bounds__(128)
linear_exact(int format, int n_in, LinearArgs a) {
  LinearTask task;
  if (!take_task<8, 16>(a, task)) return;
  const int row = threadIdx.x / 16, column = int(blockIdx.x) * 16 + int(threadIdx.x % 16);
  if (row >= task.n_rows || column >= task.group.n_out) return;
  const float* x = static_cast<const float*>(a.x) + row_in(a, task.first + row) * n_in;
  float sum = 0.f;
  for (int k = 0; k < n_in; k++) {
    const float w = unpack_value(format, task.group.weight, task.group.scales, n_in, column, k);
    sum = fmaf(x[k], w, sum);
  }
  finish(a, task.group, task.first + row, column, sum);
}
