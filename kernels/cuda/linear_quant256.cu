// out = x W^T of weights in blocks of 256; see common/linear_quant.cuh.
#include "common/linear_quant.cuh"

#define LINEAR(NAME, FORMAT)                                                                     \
  KERNEL __launch_bounds__(128) linear_##NAME##_small(LinearArgs a) { quant_small<FORMAT>(a); }   \
  KERNEL __launch_bounds__(128, 2) linear_##NAME##_large(LinearArgs a) { quant_large<FORMAT>(a); }

LINEAR(q2_k, Q2_K)
LINEAR(q3_k, Q3_K)
LINEAR(q4_k, Q4_K)
LINEAR(q5_k, Q5_K)
LINEAR(q6_k, Q6_K)
