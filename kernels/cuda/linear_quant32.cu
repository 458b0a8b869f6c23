// out = x W^T of weights in blocks of 32; see common/linear_quant.cuh.
#include "common/linear_quant.cuh"

#define LINEAR(NAME, FORMAT)                                                                     \
  KERNEL __launch_bounds__(128) linear_##NAME##_small(LinearArgs a) { quant_small<FORMAT>(a); }   \
  KERNEL __launch_bounds__(128, 2) linear_##NAME##_large(LinearArgs a) { quant_large<FORMAT>(a); }

LINEAR(q4_0, Q4_0)
LINEAR(q4_1, Q4_1)
LINEAR(q5_0, Q5_0)
LINEAR(q5_1, Q5_1)
LINEAR(q8_0, Q8_0)
LINEAR(iq4_nl, IQ4_NL)
