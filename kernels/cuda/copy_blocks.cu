// Copies whole blocks of the paged cache within each layer: pairs (from, to).
#include "common/types.cuh"

// Grid: (pairs, layers). `block_words`: 16-byte words of a block of one layer.
KERNEL copy_blocks(uint4* cache, size_t layer_words, int block_words, const uint2* pairs) {
  const uint2 pair = pairs[blockIdx.x];
  uint4* layer = cache + blockIdx.y * layer_words;
  const uint4* from = layer + size_t(pair.x) * block_words;
  uint4* to = layer + size_t(pair.y) * block_words;
  for (int i = threadIdx.x; i < block_words; i += blockDim.x) to[i] = from[i];
}
