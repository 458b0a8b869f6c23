// Attention of single rows over caches of 8 bits; see common/attention_heads.cuh.
#include "common/attention_heads.cuh"

#define ATTENTION(TYPE, DIM)                                                    \
  KERNEL __launch_bounds__(128) attention_heads_##TYPE##_##DIM(RowsArgs a) {    \
    attention_heads<TYPE, DIM>(a);                                              \
  }

ATTENTION(int8, 64)
ATTENTION(int8, 128)
ATTENTION(int8, 256)
ATTENTION(fp8, 64)
ATTENTION(fp8, 128)
ATTENTION(fp8, 256)
