// RMS and layer norm of rows, alone, in place, or with the addition to the residual stream.
#include "common/reduce.cuh"

constexpr int WARPS = 8;

// One block a row. With `residual`: residual += scale * x, and that sum is normed; else x is.
// `out` may be `x`. `layer`: take the mean away first.
KERNEL __launch_bounds__(32 * WARPS)
norm_rows(const float* x, float* residual, float scale, const float* weight, const float* bias,
     float eps, int layer, int width, float* out) {
  __shared__ float scratch[2][WARPS];
  const size_t first = size_t(blockIdx.x) * width;
  const float* from = x + first;
  if (residual) {
    float* sum = residual + first;
    for (int i = threadIdx.x; i < width; i += 32 * WARPS) sum[i] = fmaf(from[i], scale, sum[i]);
    // Each thread reads again what it wrote itself.
    from = sum;
  }
  float mean = 0.f;
  if (layer) {
    float sum = 0.f;
    for (int i = threadIdx.x; i < width; i += 32 * WARPS) sum += from[i];
    mean = block_sum<WARPS>(sum, scratch[0]) / float(width);
  }
  float squares = 0.f;
  for (int i = threadIdx.x; i < width; i += 32 * WARPS) {
    const float d = from[i] - mean;
    squares = fmaf(d, d, squares);
  }
  squares = block_sum<WARPS>(squares, scratch[1]);
  const float inverse = 1.f / sqrtf(squares / float(width) + eps);
  for (int i = threadIdx.x; i < width; i += 32 * WARPS) {
    const float y = (from[i] - mean) * inverse * weight[i];
    out[first + i] = bias ? y + bias[i] : y;
  }
}
