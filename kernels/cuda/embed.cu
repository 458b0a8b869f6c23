// out[i] = table[tokens[i]], widened exactly, from a packed table of any format.
#include "common/answer.cuh"
#include "common/unpack.cuh"

// One block a token; threads along the row. A token whose `drawn` is not below zero is that of an
// answer of the step before: its memory has not been to the host. Where nothing was drawn, what
// comes of the row is of no use, and any token will do. `drawn` may be null.
KERNEL embed(int format, const uint8_t* table, const uint8_t* scales, int n_in,
             const uint32_t* tokens, const int* drawn, const Answer* answers, float* out) {
  int row = int(tokens[blockIdx.x]);
  const int from = drawn ? drawn[blockIdx.x] : -1;
  if (from >= 0 && answers[from].is_done) row = int(answers[from].token);
  float* to = out + size_t(blockIdx.x) * n_in;
  for (int k = threadIdx.x; k < n_in; k += blockDim.x) {
    to[k] = unpack_value(format, table, scales, n_in, row, k);
  }
}
