// out = x W^T of bf16 and f16 weights on compute capability 9.0; see common/linear_wgmma.cuh.
#include "common/linear_wgmma.cuh"

// Few and many rows: threads, rows, columns and stages as in `kernels/src/cuda/wgmma.rs`.
#define LINEAR(NAME, TYPE)                                                    \
  KERNEL __launch_bounds__(256) linear_##NAME##_wgmma_small(LinearArgs a) {   \
    wgmma_linear<TYPE, 64, 32, 16>(a);                                        \
  }                                                                           \
  KERNEL __launch_bounds__(384) linear_##NAME##_wgmma_large(LinearArgs a) {   \
    wgmma_linear<TYPE, 128, 128, 8>(a);                                       \
  }

LINEAR(bf16, bf16)
LINEAR(f16, __half)
