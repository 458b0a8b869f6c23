// out = x W^T of bf16 and f16 weights; see common/linear_dense.cuh.
#include "common/linear_dense.cuh"

#define LINEAR(NAME, TYPE)                                                                       \
  KERNEL __launch_bounds__(128) linear_##NAME##_small(LinearArgs a) { dense_small<TYPE>(a); }     \
  KERNEL __launch_bounds__(128, 2) linear_##NAME##_large(LinearArgs a) { dense_large<TYPE>(a); }

LINEAR(bf16, bf16)
LINEAR(f16, __half)
