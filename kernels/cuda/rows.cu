// Rows by index, and pieces of rows.
#include "common/math.cuh"

// out[i] = x[rows[i]]; one block a row.
KERNEL gather_rows(const float* x, int width, const uint32_t* rows, float* out) {
  const float* from = x + size_t(rows[blockIdx.x]) * width;
  float* to = out + size_t(blockIdx.x) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) to[i] = from[i];
}

// out[rows[i]] = x[i]; no row occurs twice.
KERNEL scatter_rows(const float* x, int width, const uint32_t* rows, float* out) {
  const float* from = x + size_t(blockIdx.x) * width;
  float* to = out + size_t(rows[blockIdx.x]) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) to[i] = from[i];
}

// x = x * scale + shift, value by value, in the rows that are listed; either may be null.
KERNEL adjust_rows(float* x, int width, const uint32_t* rows, const float* scale,
                   const float* shift) {
  float* row = x + size_t(rows[blockIdx.x]) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float y = row[i];
    if (scale) y = __fmul_rn(y, scale[i]);
    if (shift) y = __fadd_rn(y, shift[i]);
    row[i] = y;
  }
}

// out[rows[i]] += weights[i] * x[i]; no row occurs twice.
KERNEL scatter_add_rows(const float* x, int width, const uint32_t* rows, const float* weights,
                        float* out) {
  const float* from = x + size_t(blockIdx.x) * width;
  float* to = out + size_t(rows[blockIdx.x]) * width;
  const float weight = weights[blockIdx.x];
  for (int i = threadIdx.x; i < width; i += blockDim.x) to[i] = fmaf(from[i], weight, to[i]);
}

// out[row] += sigmoid(gate[row]) * x[row].
KERNEL add_gated_rows(const float* x, const float* gate, int width, float* out) {
  const size_t first = size_t(blockIdx.x) * width;
  const float weight = sigmoid(gate[blockIdx.x]);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    out[first + i] = fmaf(x[first + i], weight, out[first + i]);
  }
}

// Piece `i / repeat` of `from` to piece `i` of `to`; one block a piece.
KERNEL strided_copy(const float* from, size_t from_stride, size_t from_offset, int repeat,
                    float* to, size_t to_stride, size_t to_offset, int len) {
  const float* a = from + size_t(blockIdx.x / repeat) * from_stride + from_offset;
  float* b = to + size_t(blockIdx.x) * to_stride + to_offset;
  for (int i = threadIdx.x; i < len; i += blockDim.x) b[i] = a[i];
}
