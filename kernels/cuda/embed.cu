// out[i] = table[tokens[i]], widened exactly, from a packed table of any format.
#include "common/unpack.cuh"

// One block a token; threads along the row.
KERNEL embed(int format, const uint8_t* table, const uint8_t* scales, int n_in,
             const uint32_t* tokens, float* out) {
  const int row = int(tokens[blockIdx.x]);
  float* to = out + size_t(blockIdx.x) * n_in;
  for (int k = threadIdx.x; k < n_in; k += blockDim.x) {
    to[k] = unpack_value(format, table, scales, n_in, row, k);
  }
}
